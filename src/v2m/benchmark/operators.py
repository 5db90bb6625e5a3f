"""The operator benchmark: the eight scans of one V2M layer, computed by competitors.

Each one gets its arguments in the layout that it likes best, and is compared with the reference in float64
before it is timed.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from v2m.benchmark.competitors import COMPETITORS, Arguments, Competitor, ScanCase, our_scan
from v2m.benchmark.memory import peak_memory
from v2m.benchmark.report import number, timing_cells
from v2m.benchmark.timing import Call, Timing, Tracker, silent, time_in_turns, timed
from v2m.layers import Directions
from v2m.layers.scan_parameters import inverse_softplus
from v2m.pictures.scaling import Panel
from v2m.system.errors import first_line

BOTH = "forward + backward"
MODES = ("forward", BOTH)
LIMITS = {torch.float32: 2e-5, torch.bfloat16: 3e-2}
"""The largest error that passes, as a share of the largest expected value."""
UPDATES_CHECKED = 2**24
"""State updates per scan that are compared: all of a small map, some lines of a large one."""


@dataclass(frozen=True)
class Workload:
    """The eight scans of one V2M layer on a square grid.

    Attributes:
        grid: Height and width in tokens.
        batch_size: Maps at once.
        channels: Inner channels D.
        states: State size N.
        dtype: Data type of the maps; parameters are float32.
        device: Where they are.
    """

    grid: int
    batch_size: int
    channels: int
    states: int
    dtype: torch.dtype
    device: torch.device

    @property
    def tokens(self) -> int:
        """Tokens that the scans go over, all eight together."""
        return 2 * len(Directions.CORNERS.paths) * self.batch_size * self.grid**2

    def scans(self) -> list[ScanCase]:
        """Four first passes (with B) and four second ones (with C), each with values as in a new model."""
        generator = torch.Generator(self.device).manual_seed(0)

        def random(*shape: int) -> Tensor:
            return torch.randn(*shape, generator=generator, device=self.device)

        map_shape = (self.batch_size, self.grid, self.grid)
        z = random(*map_shape, self.channels).to(self.dtype)
        scans: list[ScanCase] = []
        # In a layer, a path's second pass is over the result of its first. Here each has values of its own.
        for path in Directions.CORNERS.paths:
            for axis, reverse in path[:2]:
                weights = random(*map_shape, self.states).to(self.dtype)
                steps = torch.exp(random(self.channels) - 4)
                arguments = Arguments(
                    u=F.silu(random(*map_shape, self.channels)).to(self.dtype),
                    delta=random(*map_shape, self.channels).mul_(0.5).to(self.dtype),
                    A=-torch.arange(1.0, self.states + 1, device=self.device).repeat(self.channels, 1),
                    B=None if len(scans) % 2 else weights,
                    C=weights if len(scans) % 2 else None,
                    D=random(self.channels),
                    z=z,
                    delta_bias=inverse_softplus(steps),
                )
                scans.append(
                    ScanCase(arguments, random(*map_shape, self.channels).to(self.dtype), axis, reverse)
                )
        return scans


@dataclass(frozen=True)
class OperatorRow:
    """What came of one competitor.

    Attributes:
        competitor: Name.
        mode: ``forward``, or ``forward + backward``.
        grid: Height and width in tokens.
        error: Largest difference from the reference in float64, as a share of the largest value.
        problem: Why it was not timed, if it was not.
        first_call: Seconds of its first call, with whatever is compiled then.
        timing: Seconds of one call.
        ns_per_token: Nanoseconds per token and scan.
        ratio: Its time over that of the first competitor.
        memory: Peak memory in megabytes beyond the arguments.
    """

    competitor: str
    mode: str
    grid: int
    error: float | None = None
    problem: str | None = None
    first_call: float | None = None
    timing: Timing | None = None
    ns_per_token: float | None = None
    ratio: float | None = None
    memory: float | None = None

    def timed(self, timing: Timing, first: Timing | None, tokens: int) -> "OperatorRow":
        """The row with its time, for that of the first competitor and the number of tokens."""
        ratio = timing.median / first.median if first else None
        return replace(self, timing=timing, ns_per_token=1e9 * timing.median / tokens, ratio=ratio)

    def cells(self) -> dict[str, str]:
        """The row as text, by heading."""
        return {
            "competitor": self.competitor,
            **timing_cells(self.timing),
            "time ratio": number(self.ratio, ".2f"),
            "ns per token": number(self.ns_per_token, ",.2f"),
            "peak MB": number(self.memory, ",.0f"),
            "error": number(self.error, ".1e"),
            "first call s": number(self.first_call, ".2f"),
        }


def bench_operators(
    workloads: Sequence[Workload],
    names: Sequence[str],
    rounds: int,
    memory: bool = True,
    track: Tracker = silent,
) -> Iterator[list[OperatorRow]]:
    """Check and time competitors.

    Args:
        workloads: What to compute.
        names: Competitors; ratios are against the first one.
        rounds: Times that each is timed.
        memory: Measure the peak memory of each too, in a new process.
        track: Shows progress.

    Yields:
        A row per competitor, for each workload: first the forward, then forward and backward together.
    """
    for workload in workloads:
        torch.compiler.reset()  # it gives up after some number of graphs, and each length takes new ones
        scans = workload.scans()
        expected = [_Expected(scan) for scan in track(scans, "computing what is right: scan", len(scans))]
        prepared = {name: [COMPETITORS[name].prepare(scan) for scan in scans] for name in names}
        for mode in MODES:
            rows = {}
            for name in track(names, f"checking {mode}: competitor", len(names)):
                rows[name] = _check(name, prepared[name], scans, expected, mode, workload)
            # Only what computes the right thing is timed.
            right = [name for name in names if not rows[name].problem]
            calls = {name: _call(COMPETITORS[name], prepared[name], mode) for name in right}
            timings = time_in_turns(calls, rounds, workload.device, track)
            for name in right:
                rows[name] = rows[name].timed(timings[name], timings.get(names[0]), workload.tokens)
            for name in track(right if memory else [], "measuring memory: competitor", len(right)):
                peak = peak_memory(build_call, name, workload, mode, device=workload.device)
                rows[name] = replace(rows[name], memory=peak)
            yield list(rows.values())


def panels(rows: Sequence[OperatorRow]) -> list[Panel]:
    """Time per token and peak memory, for a plot over the grid."""
    found = []
    for mode in MODES:
        of_mode = [row for row in rows if row.mode == mode]
        times = [(row.competitor, row.grid, row.ns_per_token) for row in of_mode]
        memory = [(row.competitor, row.grid, row.memory) for row in of_mode]
        found += [Panel(mode, "ns per token and scan", times), Panel(mode, "peak memory, MB", memory)]
    return found


def build_call(name: str, workload: Workload, mode: str) -> Call:
    """What is timed: the workload's scans by one competitor."""
    competitor = COMPETITORS[name]
    return _call(competitor, [competitor.prepare(scan) for scan in workload.scans()], mode)


def _call(competitor: Competitor, prepared: list[ScanCase], mode: str) -> Call:
    def call() -> None:
        for scan in prepared:
            _run(competitor, scan, mode)

    return call


def _run(competitor: Competitor, prepared: ScanCase, mode: str) -> dict[str, Tensor]:
    """The output of a scan and, if the mode asks for them, its gradients, in the competitor's layout."""
    if mode == BOTH:
        return prepared.forward_backward(competitor.function)
    with torch.no_grad():
        return {"y": competitor.function(prepared)}


class _Expected:
    """The reference's results in float64, on all lines of a small map and on some of a large one."""

    def __init__(self, scan: ScanCase) -> None:
        # Lines are independent, so those of a large map can stand for it: as many as may be compared.
        batch, height, width, _ = scan.grad.shape
        self.dim, count, length = (1, height, width) if scan.axis == "row" else (2, width, height)
        fitting = max(1, UPDATES_CHECKED // (batch * length * scan.arguments.A.numel()))
        self.lines = torch.linspace(0, count - 1, min(count, fitting), device=scan.grad.device).long()
        exact = scan.change(self._part).as_leaves(torch.float64)
        self.results = exact.forward_backward(partial(our_scan, implementation="reference"))
        if len(self.lines) < count:  # gradients of parameters are sums over all lines
            self.results = {name: x for name, x in self.results.items() if x.ndim == 4}

    def _part(self, x: Tensor) -> Tensor:
        return x.index_select(self.dim, self.lines)

    def error(self, results: dict[str, Tensor]) -> float:
        """Largest difference, as a share of the largest expected value of the same tensor."""
        errors = []
        for name in results.keys() & self.results.keys():
            expected, actual = self.results[name], results[name]
            difference = (self._part(actual) if actual.ndim == 4 else actual).double() - expected
            errors.append(difference.abs().max() / expected.abs().max())
        return torch.stack(errors).max().item()


def _check(
    name: str,
    prepared: list[ScanCase],
    scans: list[ScanCase],
    expected: list[_Expected],
    mode: str,
    workload: Workload,
) -> OperatorRow:
    """Run a competitor for the first time: a row with its error, and what is wrong if anything."""
    competitor, row = COMPETITORS[name], OperatorRow(name, mode, workload.grid)
    errors, first_call = [], 0.0
    for ready, scan, right in zip(prepared, scans, expected, strict=True):
        try:
            results, seconds = timed(partial(_run, competitor, ready, mode), workload.device)
        except Exception as failure:  # whatever compilers and other packages raise
            return replace(row, problem=f"failed: {first_line(failure)}")
        errors.append(right.error(competitor.restore(results, scan)))
        first_call += seconds
    error = torch.tensor(errors).max().item()  # NaN if any is
    limit = LIMITS[workload.dtype]
    problem = None if error <= limit else f"wrong: the error is above {limit:.0e}"
    return replace(row, error=error, problem=problem, first_call=first_call)
