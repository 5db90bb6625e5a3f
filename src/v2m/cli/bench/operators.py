"""Time the eight scans of one V2M layer: our kernels beside others."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from v2m.cli.bench.report import LayerOptions, SizesOptions, check_sizes, run_benchmark

if TYPE_CHECKING:
    import torch

    from v2m.benchmark.timing import Tracker
    from v2m.cli.bench.report import Tables


@dataclass(frozen=True, kw_only=True)
class OperatorsOptions(LayerOptions, SizesOptions):
    """Options of ``v2m bench operators``.

    Attributes:
        competitors: Which, the first for ratios; by default all.
        grids: Heights and widths in tokens.
    """

    competitors: tuple[str, ...] = ()
    grids: tuple[int, ...] = (14,)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_sizes("grids", self.grids)


def run(options: OperatorsOptions) -> int:
    """Time the competitors on every grid."""
    import torch

    from v2m.benchmark import operators
    from v2m.benchmark.competitors import find_competitors
    from v2m.pictures.scaling import plot_scaling

    def measure(device: "torch.device", track: "Tracker") -> "Tables":
        names = find_competitors(list(options.competitors), device)
        dtype = getattr(torch, options.dtype)
        sizes = (options.batch_size, options.channels, options.states)
        workloads = [operators.Workload(grid, *sizes, dtype, device) for grid in options.grids]
        for group in operators.bench_operators(workloads, names, options.rounds, options.memory, track):
            grid = group[0].grid
            yield f"{group[0].mode}, {grid}x{grid} tokens, batch {options.batch_size}", [*group]

    def draw(rows: list[Any], path: Path, title: str) -> None:
        plot_scaling(operators.panels(rows), "height and width in tokens", path, title)

    return run_benchmark("operators", options, measure, draw)
