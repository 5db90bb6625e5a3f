"""What the commands of ``v2m bench`` share: run a benchmark, show its tables, keep its results."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeAlias

from v2m.cli.options import DeviceOptions
from v2m.tasks.checks import check_least

if TYPE_CHECKING:
    import torch
    from rich.console import Console

    from v2m.benchmark.hardware import Hardware
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
        output: Where the results are kept: a file (FILE.json), or a folder, where they are named by machine
            and date. Without it nothing is written.
    """

    batch_size: int = 8
    rounds: int = 10
    dtype: Literal["float32", "bfloat16"] = "float32"
    threads: int | None = None
    output: str | None = None

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


class KeptRows:
    """The rows of a benchmark, and the file in which they are kept, if one was asked for.

    Args:
        topic: What is measured.
        options: How, and where results are kept.
        hardware: On what.

    Raises:
        ValueError: the file is there already.
    """

    def __init__(self, topic: str, options: BenchOptions, hardware: "Hardware") -> None:
        from v2m.benchmark.report import file_name

        self.rows: list[Row] = []
        self.path: Path | None = None
        self._about = (topic, hardware, asdict(options))
        if options.output is not None:
            path = Path(options.output)
            name = file_name(topic, hardware, f"{datetime.now():%Y%m%d-%H%M%S}")
            self.path = path if path.suffix == ".json" else path / name

    def refuse_to_replace(self) -> None:
        """Raise a ``ValueError`` if the file is there: what it holds took long to measure."""
        if self.path and self.path.exists():
            raise ValueError(f"output: {self.path} is there already, give another name or a folder")

    def keep(self, rows: "Sequence[Row]") -> None:
        """Add rows, and write the file anew: a benchmark that is stopped has left something."""
        from v2m.benchmark.report import write_json

        self.rows += rows
        if self.path:
            write_json(self.path, *self._about, self.rows)

    @property
    def place(self) -> str:
        """A line that says where they are, or how they would have been kept."""
        if self.path:
            return f"results: {self.path}"
        return "nothing was written: --output FILE.json or --output FOLDER keeps results"

    @property
    def exit_code(self) -> int:
        """1 if a row has a problem."""
        return 1 if any(getattr(row, "problem", None) for row in self.rows) else 0


def find_hardware(options: BenchOptions, out: "Console") -> "tuple[torch.device, Hardware]":
    """The device and the machine, as options ask for them; prints what they are."""
    import torch

    from v2m.benchmark.hardware import Hardware
    from v2m.engine.device import find_device

    if options.threads:
        torch.set_num_threads(options.threads)
    device = find_device(options.device)
    hardware = Hardware.of(device)
    for line in hardware.lines():
        out.print(line)
    return device, hardware


def print_group(title: str, rows: "Sequence[Row]", out: "Console") -> None:
    """Print rows as a table, and what is wrong with them below it."""
    from v2m.benchmark.report import table

    out.print()
    out.print(title, style="bold")
    out.print(table(rows))
    for row in rows:
        name, *_ = row.cells().values()
        for text in (getattr(row, "problem", None), getattr(row, "note", None)):
            if text:
                out.print(f"{name}: {text}")


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
    from v2m.cli.output import console
    from v2m.engine.progress import track

    out, errors = console(), console(stderr=True)
    device, hardware = find_hardware(options, out)
    results = KeptRows(topic, options, hardware)
    results.refuse_to_replace()
    try:
        for title, group in measure(device, partial(track, console=errors)):
            results.keep(group)
            print_group(title, group, out)
    finally:
        if results.rows:
            out.print()
            out.print(results.place)
    if draw and isinstance(options, SizesOptions) and options.plot:
        draw(results.rows, Path(options.plot), f"{hardware.name}, {options.dtype}")
        out.print(f"plot: {options.plot}")
    return results.exit_code
