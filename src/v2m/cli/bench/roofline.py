"""Compare our kernels with what this machine could do."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from v2m.cli.bench.report import LayerOptions, run_benchmark
from v2m.tasks.checks import check_least

if TYPE_CHECKING:
    import torch

    from v2m.benchmark.timing import Tracker
    from v2m.cli.bench.report import Tables


@dataclass(frozen=True, kw_only=True)
class RooflineOptions(LayerOptions):
    """Options of ``v2m bench roofline``.

    Attributes:
        grid: Height and width in tokens.
    """

    grid: int = 14

    def __post_init__(self) -> None:
        super().__post_init__()
        check_least(self, "", 1, "grid")


def run(options: RooflineOptions) -> int:
    """Time the kernels, and measure the ceilings of the machine."""
    import torch

    from v2m.benchmark import operators, roofline

    def measure(device: "torch.device", track: "Tracker") -> "Tables":
        dtype = getattr(torch, options.dtype)
        sizes = (options.grid, options.batch_size, options.channels, options.states)
        rows = roofline.bench_roofline(operators.Workload(*sizes, dtype, device), options.rounds, track)
        limits = rows[0].ceilings
        yield (
            f"ceilings: {limits.exps / 1e9:,.2f} Gexp/s, {limits.flops / 1e9:,.0f} GFLOP/s, "
            f"{limits.bytes / 1e9:,.1f} GB/s",
            [*rows],
        )

    return run_benchmark("roofline", options, measure)
