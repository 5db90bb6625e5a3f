"""What a benchmark ran on."""

import os
import platform
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import timm
import torch

import v2m
from v2m.benchmark.processor import cache_sizes, cpu_name, threads_per_core
from v2m.ops.dispatch import fastest
from v2m.ops.kernels.build import KernelError, vector_instructions
from v2m.system.machine import cores

SETTINGS = ("OMP_", "KMP_", "GOMP_", "MKL_", "MALLOC_", "GLIBC_TUNABLES", "LD_PRELOAD", "PYTORCH_", "V2M_")
"""How variables begin that change threads, the allocator or our kernels."""


@dataclass(frozen=True)
class Hardware:
    """Machine, versions and settings that a measurement depends on.

    Attributes:
        cpu: Name of the processor, with its generation where that is known.
        instructions: The widest vector instructions that PyTorch uses on it.
        kernel_instructions: The widest that our C++ kernels are compiled for; None without them.
        caches: Sizes of the data caches that one core sees, by level.
        cores: Processors that this process may use.
        threads_per_core: How many of them share a core; None where the system does not tell.
        threads: Threads of PyTorch.
        load: Processes that wanted to run in the last minute, where the system tells.
        gpu: Name of the GPU in use, if any.
        kernels: Which of our implementations is the fastest here.
        system: Operating system.
        versions: Of Python and the packages.
        environment: The variables that begin with one of ``SETTINGS``.
    """

    cpu: str
    instructions: str
    kernel_instructions: str | None
    caches: dict[str, str]
    cores: int
    threads_per_core: int | None
    threads: int
    load: float | None
    gpu: str | None
    kernels: str
    system: str
    versions: dict[str, str]
    environment: dict[str, str]

    @classmethod
    def of(cls, device: torch.device) -> "Hardware":
        """This machine, with ``device`` in use."""
        kernels = fastest(device)
        return cls(
            cpu=cpu_name(),
            instructions=torch.backends.cpu.get_cpu_capability(),
            kernel_instructions=_kernel_instructions() if kernels == "cpu" else None,
            caches=cache_sizes(),
            cores=cores(),
            threads_per_core=threads_per_core(),
            threads=torch.get_num_threads(),
            load=round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
            gpu=torch.cuda.get_device_name(device) if device.type == "cuda" else None,
            kernels=kernels,
            system=f"{platform.system()} {platform.machine()}",
            versions=dict(
                python=platform.python_version(),
                torch=torch.__version__,
                timm=timm.__version__,
                v2m=v2m.__version__,
            ),
            environment={k: v for k, v in sorted(os.environ.items()) if k.startswith(SETTINGS)},
        )

    @property
    def name(self) -> str:
        """The GPU, or the processor with the number of threads."""
        return hardware_name(asdict(self))

    def lines(self) -> list[str]:
        """What a benchmark prints of it, before it begins."""
        vectors = f" ({self.kernel_instructions})" if self.kernel_instructions else ""
        facts = [f"{self.cores} processors"]
        if self.threads_per_core:
            facts.append(f"{self.threads_per_core} to a core")
        facts += [f"{level} {size}" for level, size in self.caches.items()]
        return [
            f"{self.name}; {self.kernels} kernels{vectors}, load {self.load}",
            ", ".join(facts),
        ]


def hardware_name(saved: Mapping[str, Any]) -> str:
    """The name of a machine, from what a file of results holds of it."""
    threads = "1 thread" if saved["threads"] == 1 else f"{saved['threads']} threads"
    return saved["gpu"] or f"{saved['cpu']}, {threads}"


def _kernel_instructions() -> str | None:
    try:
        return vector_instructions()
    except KernelError:  # a compiler that does not tell; that is no reason to measure nothing
        return None
