"""What a benchmark ran on."""

import os
import platform
from dataclasses import dataclass
from pathlib import Path

import timm
import torch

import v2m
from v2m.ops.dispatch import fastest

SETTINGS = ("OMP_", "KMP_", "GOMP_", "MKL_", "MALLOC_", "GLIBC_TUNABLES", "LD_PRELOAD", "PYTORCH_", "V2M_")
"""How variables begin that change threads, the allocator or our kernels."""


@dataclass(frozen=True)
class Hardware:
    """Machine, versions and settings that a measurement depends on.

    Attributes:
        cpu: Name of the processor.
        instructions: The widest vector instructions that PyTorch uses on it.
        cores: Processors that this process may use.
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
    cores: int
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
        return cls(
            cpu=_cpu_name(),
            instructions=torch.backends.cpu.get_cpu_capability(),
            cores=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
            threads=torch.get_num_threads(),
            load=round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
            gpu=torch.cuda.get_device_name(device) if device.type == "cuda" else None,
            kernels=fastest(device),
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
        threads = "1 thread" if self.threads == 1 else f"{self.threads} threads"
        return self.gpu or f"{self.cpu}, {threads}"


def _cpu_name() -> str:
    info = Path("/proc/cpuinfo")  # Linux; platform.processor() is empty there
    lines = info.read_text().splitlines() if info.exists() else []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor() or platform.machine())
