"""The device that this process computes on: which one, and how much memory is taken."""

import psutil
import torch

from v2m.system.devices import AUTO, check_device_name
from v2m.system.threads import why_fewer

BYTES_PER_MB = 1e6


def best_device() -> torch.device:
    """A GPU if there is one, else the CPU."""
    return torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu")


def find_device(name: str) -> torch.device:
    """The device of a name.

    Args:
        name: ``auto`` for a GPU if there is one; ``cpu``, ``cuda``, ``mps`` or ``xpu``; ``cuda:1`` or
            ``xpu:1`` for one of several.

    Raises:
        ValueError: the name is none of a device, or the device is not there.
    """
    check_device_name(name)
    if name == AUTO:
        return best_device()
    there = available_devices()
    if name not in {*there, *(other.partition(":")[0] for other in there)}:
        raise ValueError(f"device: {name} is not there, this machine has {', '.join(there)}")
    return torch.device(name)


def available_devices() -> list[str]:
    """Names of all devices of this machine, the CPU first."""
    found = ["cpu"]
    if torch.backends.mps.is_available():
        found.append("mps")
    for module in (torch.cuda, torch.xpu):
        kind = module.__name__.rpartition(".")[2]
        found += [f"{kind}:{index}" for index in range(module.device_count())]
    return found


def describe_device(device: torch.device) -> str:
    """The name of a device with what it is: its model, or how many threads compute."""
    if device.type == "cpu":
        threads = torch.get_num_threads()
        return f"cpu, {threads} thread{'s' if threads > 1 else ''}{why_fewer()}"
    if device.type in ("cuda", "xpu"):
        return f"{device} ({getattr(torch, device.type).get_device_name(device)})"
    return str(device)


def sum_dtype(device: torch.device) -> torch.dtype:
    """The type of sums over many numbers: float64, which Apple's GPUs lack."""
    return torch.float32 if device.type == "mps" else torch.float64


def memory_mb(device: torch.device) -> float:
    """Memory in megabytes of 1e6 bytes.

    On a GPU this is the most that tensors took so far. Elsewhere it is what the process takes now.
    """
    if device.type in ("cuda", "xpu"):
        return torch.accelerator.max_memory_allocated(device) / BYTES_PER_MB
    return psutil.Process().memory_info().rss / BYTES_PER_MB
