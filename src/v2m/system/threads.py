"""How many threads PyTorch computes with on a CPU, and how these wait for one another.

PyTorch's operators are cut into as many parts as there are threads, and end when the last part does. Where
other work takes a core, all threads wait for the one that has none. libgomp, PyTorch's runtime, lets them
spin meanwhile, for milliseconds, which takes the core from whoever could go on.
"""

import os
import time
from functools import partial
from typing import NamedTuple

import psutil

from v2m.system.imports import after_import
from v2m.system.machine import allowed_cores, cores

SPIN_VARIABLES = ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")
SPINS = 10_000
"""Looks at a barrier before a thread sleeps: a tenth of a millisecond, as operators are short."""
COUNT_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")
BUSY = ("user", "nice", "system", "irq", "softirq", "steal")
LEAST_SECONDS = 0.2
"""The system counts in hundredths of a second, so that less than this tells nothing."""

_others = 0.0


class CpuTime(NamedTuple):
    """Seconds until now.

    Attributes:
        wall: Of the clock.
        own: That this process computed.
        all: That the cores which this process may use were busy, with whatever.
    """

    wall: float
    own: float
    all: float

    @classmethod
    def now(cls) -> "CpuTime":
        """What the system has counted so far."""
        counted = psutil.cpu_times(percpu=True)
        mine = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else range(len(counted))
        busy = sum(getattr(counted[i], name, 0.0) for i in mine if i < len(counted) for name in BUSY)
        return cls(time.monotonic(), time.process_time(), busy)

    def others_until(self, later: "CpuTime") -> float:
        """Cores that other work took since this moment, on average; 0 where the time is too short to tell."""
        wall = later.wall - self.wall
        if wall < LEAST_SECONDS:
            return 0.0
        return max(0.0, (later.all - self.all) - (later.own - self.own)) / wall


def share_cores() -> None:
    """Suit PyTorch's threads to a machine that does other work too.

    This is for a process of our own, before PyTorch is imported: libgomp reads the variables as it is loaded.
    While that takes its seconds, the load of the machine is seen. The number of threads stays the same then,
    since results depend on it in the last bits. What the user has set in the environment stays.
    """
    if not any(name in os.environ for name in SPIN_VARIABLES):
        os.environ["GOMP_SPINCOUNT"] = str(SPINS)
    if not any(name in os.environ for name in COUNT_VARIABLES):
        after_import("torch", partial(_limit_threads, CpuTime.now()))


def _limit_threads(start: CpuTime) -> None:
    global _others
    import torch

    others = start.others_until(CpuTime.now())
    threads = threads_beside(others, torch.get_num_threads())
    if threads < torch.get_num_threads():
        torch.set_num_threads(threads)  # and MKL's
        _others = others


def threads_beside(others: float, most: int) -> int:
    """Threads that have a core each, at least one.

    Args:
        others: Cores that other work takes.
        most: Threads that PyTorch would take.
    """
    return max(1, min(most, cores(), int(allowed_cores() - others + 0.5)))


def why_fewer() -> str:
    """Why there are fewer threads than cores, for a line that tells their number; empty if it is not so."""
    return f" (other work takes {_others:.1f} of {cores()} cores)" if _others >= 0.5 else ""
