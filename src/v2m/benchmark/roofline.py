"""The roofline: what the machine could do, and how much of that each of our kernels does.

The table has what a kernel must do per token and channel, with N states, rank R and K taps. A multiplication
and an addition are two FLOPs. Every number moves between memory and processor once; what is projected has
numbers per token only.

=============  =====  ======================================  ==================================  =========
kernel         exps   FLOPs                                   numbers per channel                 per token
=============  =====  ======================================  ==================================  =========
scan forward   N + 2  5 N + 2 R + 5                           3 (s, gate; y)                      N + R
scan backward  N + 2  17 N + 2 R + 14                         6 (s, gate, dy; ds, ddelta, dgate)  2 N + R
pass forward   N + 3  scan, 2 (N + R), 2 K + 3                3 (x, gate; y)
pass backward  N + 4  scan, 6 (N + R), 4 R, 8 K + 10          5 (x, gate, dy; dx, dgate)
=============  =====  ======================================  ==================================  =========

Per state, a scan takes 1 FLOP for the exponent, 2 for the state, and 2 for what enters and leaves it.
Softplus is two exps. The backward computes states again, but no decay twice. A pass adds the projections
and a convolution: 2 K + 3 FLOPs forward, 6 K + 7 backward, and SiLU's exp. Its backward computes the forward
again.
"""

from collections.abc import Callable
from ctypes import c_int64, c_void_p
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from v2m.benchmark.operators import Workload
from v2m.benchmark.report import timing_cells
from v2m.benchmark.timing import Call, Timing, Tracker, silent, time_in_turns
from v2m.ops.directional.arguments import PassInputs
from v2m.ops.directional.interface import PASS
from v2m.ops.kernels.build import KERNELS, Code, is_available, library
from v2m.ops.kernels.cpu import openmp_parallel
from v2m.ops.scan.interface import SCAN

TAPS = 4
"""Of the causal convolution, K."""
CHANNELS_PER_RANK = 32
"""The rank R of delta grows with the channels, as in a V2M."""
REPEATS = 64
"""Exponentials in a row of the same number, so that memory does not limit them."""
EXPONENTIALS = Code(
    "the exponentials of the roofline",
    (Path(__file__).with_name("exponentials.cpp"), *(f for f in KERNELS.files if f.suffix == ".h")),
    ("v2m_exp2",),
)


@dataclass(frozen=True)
class Work:
    """Exponentials, FLOPs and bytes: of a kernel, or per second of a machine."""

    exps: float
    flops: float
    bytes: float


@dataclass(frozen=True)
class KernelRow:
    """The time of a kernel beside the time that the machine would need for its work.

    Attributes:
        kernel: Name of the kernel.
        timing: Seconds of one call.
        work: What one call must do.
        ceilings: What the machine can do in a second.
    """

    kernel: str
    timing: Timing
    work: Work
    ceilings: Work

    def floors(self) -> dict[str, float]:
        """Seconds that the machine needs for each kind of work alone. The longest of them is the floor."""
        return {
            "exps": self.work.exps / self.ceilings.exps,
            "FLOPs": self.work.flops / self.ceilings.flops,
            "bytes": self.work.bytes / self.ceilings.bytes,
        }

    def cells(self) -> dict[str, str]:
        """The row as text, by heading."""
        floors, measured = self.floors(), self.timing.median
        # Memory may work beside the processor; exponentials and FLOPs share it, so their sum is shown too.
        bound = max(floors, key=lambda name: floors[name])
        return {
            "kernel": self.kernel,
            **timing_cells(self.timing),
            "exps": f"{self.work.exps / 1e6:,.1f} M",
            "FLOPs": f"{self.work.flops / 1e6:,.0f} M",
            "bytes": f"{self.work.bytes / 1e6:,.1f} M",
            **{f"ms of {name}": f"{1e3 * seconds:.2f}" for name, seconds in floors.items()},
            "bound by": bound,
            "floor / ms": f"{floors[bound] / measured:.0%}",
            "(exps + FLOPs) / ms": f"{(floors['exps'] + floors['FLOPs']) / measured:.0%}",
        }


def bench_roofline(workload: Workload, rounds: int, track: Tracker = silent) -> list[KernelRow]:
    """Measure the ceilings of this machine and the kernels, in turns.

    Args:
        workload: The sizes; each kernel does the eight passes of a layer.
        rounds: Times that each is timed.
        track: Shows progress.

    Returns:
        A row per kernel.
    """
    # Ceilings and kernels take turns too: a busy machine lowers both.
    limits = _limits(workload.device)
    calls = {name: call for name, (call, _) in limits.items()} | _kernels(workload)
    timings = time_in_turns(calls, rounds, workload.device, track)
    ceilings = Work(**{name: amount / timings[name].median for name, (_, amount) in limits.items()})
    return [KernelRow(name, timings[name], work, ceilings) for name, work in count_work(workload).items()]


def count_work(workload: Workload) -> dict[str, Work]:
    """What each kernel must do for the eight passes."""
    # As in the table at the top of this file.
    tokens, channels, N = workload.tokens, workload.channels, workload.states
    R, K = _rank(workload), TAPS

    def work(exps: int, flops: int, maps: int, projected: int = 0) -> Work:
        numbers = tokens * (channels * maps + projected)
        return Work(tokens * channels * exps, tokens * channels * flops, workload.dtype.itemsize * numbers)

    conv, conv_back = 2 * K + 3, 6 * K + 7
    scan, scan_back = 5 * N + 2 * R + 5, 17 * N + 2 * R + 14
    return {
        "scan forward": work(N + 2, scan, maps=3, projected=N + R),
        "scan backward": work(N + 2, scan_back, maps=6, projected=2 * N + R),
        "pass forward": work(N + 3, scan + 2 * (N + R) + conv, maps=3),
        "pass backward": work(N + 4, scan_back + 6 * (N + R) + 4 * R + conv + conv_back, maps=5),
    }


def _rank(workload: Workload) -> int:
    return -(-workload.channels // CHANNELS_PER_RANK)


def _kernels(workload: Workload) -> dict[str, Call]:
    """A call for each kernel, with the eight passes of a layer."""
    # The kernels themselves: autograd and the checks of the operators would count as theirs.
    scan, directional = (operator.kernels_for(workload.device, None) for operator in (SCAN, PASS))
    passes = _passes(workload)
    projected = (F.linear(p.x, p.proj_weight) for p in passes)
    scans = [p.scan_inputs(p.x, x) for p, x in zip(passes, projected, strict=True)]
    grads = [torch.randn_like(p.x) for p in passes]

    def each(kernel: Callable[..., object], *inputs: list[Any]) -> Call:
        def call() -> None:
            for arguments in zip(*inputs, strict=True):
                kernel(*arguments)

        return call

    return {
        "scan forward": each(scan.forward, scans),
        "scan backward": each(scan.backward, grads, scans),
        "pass forward": each(directional.forward, passes),
        "pass backward": each(directional.backward, grads, passes),
    }


def _passes(workload: Workload) -> list[PassInputs]:
    """The eight passes of a layer, with values as in a new model."""
    channels, states, rank = workload.channels, workload.states, _rank(workload)

    def random(*shape: int) -> Tensor:
        return torch.randn(*shape, device=workload.device).to(workload.dtype)

    passes = []
    for scan in workload.scans():
        s = scan.arguments
        passes.append(
            PassInputs(
                x=s.u,
                gate=F.silu(s.z),
                conv_weight=random(channels, TAPS) / 2,
                conv_bias=random(channels) / 2,
                proj_weight=random(rank + states, channels) / channels**0.5,
                delta_weight=random(channels, rank) / rank**0.5,
                delta_bias=s.delta_bias,
                A=s.A,
                D=s.D,
                selects="C" if s.B is None else "B",
                axis=scan.axis,
                reverse=scan.reverse,
            )
        )
    return passes


def _limits(device: torch.device) -> dict[str, tuple[Call, float]]:
    """Calls that do nothing but exponentials, FLOPs or copies, each with how many (of bytes, for copies)."""
    is_gpu = device.type == "cuda"
    # Exponentials in numbers that stay in cache, a product of matrices that is large enough to be bound by
    # FLOPs, and a copy of more than any cache holds.
    cached = torch.randn(2**26 if is_gpu else 2**15 * torch.get_num_threads(), device=device)
    square = torch.randn(2, *(2 * [8192 if is_gpu else 1024]), device=device)
    large = torch.randn(2**28 if is_gpu else 2**26, device=device)
    copy = torch.empty_like(large)

    def exps_in_turn(x: Tensor) -> Any:
        for _ in range(REPEATS):
            x = torch.exp2(-x)
        return x

    exps: Call
    if not is_gpu and is_available():
        exps = partial(exp2_repeatedly, cached)
    else:
        exps = partial(torch.compile(exps_in_turn), cached)  # one kernel: an exp alone waits for memory
    return {
        "exps": (exps, REPEATS * cached.numel()),
        "flops": (partial(torch.mm, square[0], square[1]), 2 * square.shape[-1] ** 3),
        # Each number is read and written.
        "bytes": (partial(copy.copy_, large), 2 * large.nbytes),
    }


def exp2_repeatedly(x: Tensor) -> None:
    """Replace float32 numbers by 2 to the power of their negatives, ``REPEATS`` times in a row."""
    library(EXPONENTIALS).v2m_exp2(
        c_void_p(x.data_ptr()),
        c_int64(x.numel()),
        c_int64(REPEATS),
        c_void_p(openmp_parallel()),
        c_int64(torch.get_num_threads()),
    )
