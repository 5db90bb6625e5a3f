"""Peak memory of a call, measured in a process of its own."""

import ctypes
import gc
import os
import signal
from collections.abc import Callable
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch

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
    if device.type not in ("cpu", "cuda") or (device.type == "cpu" and not CLEAR.exists()):
        return None
    # A new process, since memory that this one has freed and kept would hide what the call takes.
    context = get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    folder = os.getcwd()
    work = (sender, folder, torch.get_num_threads(), device, build, *arguments)
    process = context.Process(target=_measure, args=work)
    # The process inherits this: Ctrl-C is for us, and we end it.
    handler = signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.chdir(os.sep)  # where a new Python looks for modules first
    try:
        process.start()
    finally:
        os.chdir(folder)
        signal.signal(signal.SIGINT, handler)
    # The process has the only copy now: if it is killed, the pipe closes, and receiving ends.
    sender.close()
    try:
        result = receiver.recv()
    except EOFError:
        raise OSError(
            "the process that measures memory was killed, probably for want of memory; take a smaller batch "
            "or size, or --memory false"
        ) from None
    finally:
        process.kill()
        process.join()
    if isinstance(result, Exception):
        raise result
    return result / 2**20


def _measure(sender: Connection, folder: str, threads: int, device: torch.device, *task: Any) -> None:
    """What the new process does: send the peak in bytes, or the error."""
    # As in the process that started this one: compiled code and memory depend on the number of threads.
    os.chdir(folder)
    torch.set_num_threads(threads)
    try:
        sender.send(_peak(device, *task))
    except Exception as error:  # raised again by the other side
        sender.send(error)


def _peak(device: torch.device, build: Callable[..., Call], *arguments: Any) -> int:
    """Bytes that two calls take at most, beyond what ``build`` made."""
    build(*arguments)()  # compiles and loads
    # What that freed but kept would be used again unseen.
    _give_back_free_memory()
    call = build(*arguments)
    if device.type == "cuda":
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
    else:
        before = _resident("VmRSS")
        CLEAR.write_text("5")  # the peak starts again from what is resident now
    for _ in range(2):
        call()
    peak = torch.cuda.max_memory_allocated(device) if device.type == "cuda" else _resident("VmHWM")
    return peak - before


def _give_back_free_memory() -> None:
    """Make glibc return to the system what it keeps for later; other allocators have their own ways."""
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim:
        trim(0)


def _resident(field: str) -> int:
    """Bytes of memory of this process: ``VmRSS`` now, ``VmHWM`` at most."""
    line = next(line for line in STATUS.read_text().splitlines() if line.startswith(f"{field}:"))
    return int(line.split()[1]) * 1024
