"""The memory that training takes."""

import psutil
import torch

BYTES_PER_MB = 1e6


def memory_mb(device: torch.device) -> float:
    """Megabytes of 1e6 bytes: the most that tensors took on a GPU, elsewhere what the process takes now."""
    if device.type in ("cuda", "xpu"):
        return torch.accelerator.max_memory_allocated(device) / BYTES_PER_MB
    return psutil.Process().memory_info().rss / BYTES_PER_MB
