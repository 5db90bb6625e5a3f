"""What the commands of ``v2m bench`` share: run a benchmark, show its tables, keep its results."""

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeAlias

from v2m.cli.options import DeviceOptions
from v2m.tasks.checks import check_least

if TYPE_CHECKING:
    import torch

    from v2m.benchmark.report import Row
    from v2m.benchmark.timing import Tracker

    Tables: TypeAlias = Iterator[tuple[str, list[Row]]]


@dataclass(frozen=True, kw_only=True)
class BenchOptions(DeviceOptions):
    """Options of every benchmark.

    Attributes:
        batch_size: Images at once.
        rounds: Times that each is timed.
        dtype: Of parameters and images.
        threads: Of PyTorch on the CPU.
        output: Folder for the results.
    """

    batch_size: int = 8
    rounds: int = 10
    dtype: Literal["float32", "bfloat16"] = "float32"
    threads: int | None = None
    output: str = "benchmarks/results"

    def __post_init__(self) -> None:
        check_least(self, "", 1, "batch_size", "rounds", "threads")


@dataclass(frozen=True, kw_only=True)
class SizesOptions(BenchOptions):
    """Options of a benchmark over several sizes.

    Attributes:
        memory: Measure the peak memory too.
        plot: PNG to draw: time and memory over the size.
    """

    memory: bool = True
    plot: str | None = None


@dataclass(frozen=True, kw_only=True)
class LayerOptions(BenchOptions):
    """Options of a benchmark of one layer.

    Attributes:
        channels: Inner channels of the layer.
        states: State size.
    """

    channels: int = 384
    states: int = 16

    def __post_init__(self) -> None:
        super().__post_init__()
        check_least(self, "", 1, "channels", "states")


def check_sizes(name: str, sizes: tuple[int, ...]) -> None:
    """Raise a ``ValueError`` unless all sizes are positive."""
    if min(sizes) < 1:
        raise ValueError(f"{name} is {min(sizes)}, expected at least 1")


def run_benchmark(
    topic: str,
    options: BenchOptions,
    measure: "Callable[[torch.device, Tracker], Tables]",
    draw: "Callable[[list[Row], Path, str], None] | None" = None,
) -> int:
    """Run a benchmark, show its tables and keep its results: 1 if a competitor was wrong or failed.

    Args:
        topic: What is measured.
        options: How.
        measure: Gives tables with their titles, one after the other.
        draw: Draws all rows into a file, with a title.
    """
    import torch

    from v2m.benchmark.hardware import Hardware
    from v2m.benchmark.report import file_name, table, write_json
    from v2m.cli.output import console
    from v2m.engine.device import find_device
    from v2m.engine.progress import track

    out, errors = console(), console(stderr=True)
    if options.threads:
        torch.set_num_threads(options.threads)
    device = find_device(options.device)
    hardware = Hardware.of(device)
    results = Path(options.output) / file_name(topic, hardware, f"{datetime.now():%Y%m%d-%H%M%S}")
    machine = f"{hardware.name}, {options.dtype}"
    out.print(f"{machine}, {hardware.kernels} kernels, load {hardware.load}")
    rows: list[Row] = []
    try:
        for title, group in measure(device, partial(track, console=errors)):
            rows += group
            # After every group, so that a long benchmark that is stopped has left something.
            write_json(results, topic, hardware, asdict(options), rows)
            out.print()
            out.print(title, style="bold")
            out.print(table(group))
            for row in group:
                name, *_ = row.cells().values()
                if problem := getattr(row, "problem", None):
                    out.print(f"{name}: {problem}")
    finally:
        if rows:
            out.print()
            out.print(f"results: {results}")
    if draw and isinstance(options, SizesOptions) and options.plot:
        draw(rows, Path(options.plot), machine)
        out.print(f"plot: {options.plot}")
    return 1 if any(getattr(row, "problem", None) for row in rows) else 0
