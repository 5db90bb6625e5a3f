"""The device that this process computes on: which one, and how much memory is taken."""

import psutil
import torch

BYTES_PER_MB = 1e6


def best_device() -> torch.device:
    """A GPU if there is one, else the CPU."""
    return torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu")


def memory_mb(device: torch.device) -> float:
    """Memory in megabytes of 1e6 bytes.

    On a GPU this is the most that tensors took so far. Elsewhere it is what the process takes now.
    """
    if device.type in ("cuda", "xpu"):
        return torch.accelerator.max_memory_allocated(device) / BYTES_PER_MB
    return psutil.Process().memory_info().rss / BYTES_PER_MB
