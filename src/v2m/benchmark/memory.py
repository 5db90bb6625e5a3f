"""Peak memory of a call, measured in a process of its own."""

import ctypes
import gc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from v2m.benchmark.alone import run_alone
from v2m.benchmark.timing import Call

STATUS, CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")
"""Where Linux tells the memory of a process, and where it is told to start the peak again."""


def peak_memory(build: Callable[..., Call], *arguments: Any, device: torch.device) -> float | None:
    """The peak memory of calling what ``build(*arguments)`` returns, twice.

    It counts what comes on top of what ``build`` made. The second call is there for what the first one leaves
    behind, such as the optimiser's averages of a training step. What is compiled or loaded on first use does
    not count.

    Args:
        build: Makes the call. It runs in a new process, so it must be importable.
        arguments: Arguments of ``build``.
        device: Where the call runs. On a CPU, the memory of the process is read, which only Linux tells. On a
            GPU, it is what PyTorch's allocator gave out.

    Returns:
        The peak in megabytes (2^20 bytes), or None where it cannot be read.

    Raises:
        OSError: the process was killed, as happens where the machine has too little memory.
    """
    if not _is_told(device):
        return None
    # A new process, since memory that this one has freed and kept would hide what the call takes.
    return run_alone(_peak, device, build, *arguments)


def _peak(device: torch.device, build: Callable[..., Call], *arguments: Any) -> float | None:
    """Megabytes that two calls take at most, beyond what ``build`` made."""
    build(*arguments)()  # compiles and loads
    # What that freed but kept would be used again unseen.
    give_back_free_memory()
    call = build(*arguments)
    peak = PeakMemory(device)
    for _ in range(2):
        call()
    return peak.megabytes()


class PeakMemory:
    """The peak memory of this process from now on, beyond what it holds now.

    Args:
        device: Of which memory counts.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._before = 0
        if device.type == "cuda":
            self._before = torch.cuda.memory_allocated(device)
            torch.cuda.reset_peak_memory_stats(device)
        elif _is_told(device):
            self._before = _resident("VmRSS")
            CLEAR.write_text("5")  # the peak starts again from what is resident now

    def megabytes(self) -> float | None:
        """The peak in units of 2^20 bytes, or None where it cannot be read."""
        if not _is_told(self.device):
            return None
        is_gpu = self.device.type == "cuda"
        peak = torch.cuda.max_memory_allocated(self.device) if is_gpu else _resident("VmHWM")
        return (peak - self._before) / 2**20


def _is_told(device: torch.device) -> bool:
    """Whether peaks can be read: of GPUs by PyTorch, of a CPU where this is Linux."""
    return device.type == "cuda" or (device.type == "cpu" and CLEAR.exists())


def give_back_free_memory() -> None:
    """Make glibc return to the system what it keeps for later; other allocators have their own ways."""
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim:
        trim(0)


def _resident(field: str) -> int:
    """Bytes of memory of this process: ``VmRSS`` now, ``VmHWM`` at most."""
    line = next(line for line in STATUS.read_text().splitlines() if line.startswith(f"{field}:"))
    return int(line.split()[1]) * 1024
