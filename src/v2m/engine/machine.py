"""What the machine gives to this process."""

import os

import psutil
import torch

BYTES_PER_MB = 1e6


def cores() -> int:
    """CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def memory_mb(device: torch.device) -> float:
    """Megabytes of 1e6 bytes: the most that tensors took on a GPU, elsewhere what the process takes now."""
    if device.type in ("cuda", "xpu"):
        return torch.accelerator.max_memory_allocated(device) / BYTES_PER_MB
    return psutil.Process().memory_info().rss / BYTES_PER_MB
