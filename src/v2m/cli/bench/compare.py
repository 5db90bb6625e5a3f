"""Compare timm's light models with ours: speed and memory, in classes of size."""

from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

from v2m.cli.bench.report import BenchOptions, KeptRows, check_sizes, find_hardware, print_group
from v2m.tasks.checks import check_least

if TYPE_CHECKING:
    from v2m.benchmark.comparison import ComparedModel
    from v2m.benchmark.hardware import Hardware

GONE_ON_WITH = ("batch_size", "rounds", "dtype", "limit")
"""Settings that must be those of a file of results to go on with it."""


@dataclass(frozen=True, kw_only=True)
class CompareOptions(BenchOptions):
    """Options of ``v2m bench compare``.

    Attributes:
        models: Which; NAME, or NAME:argument=value,argument=value. By default timm's light models and all of
            ours.
        resolutions: Heights and widths in pixels.
        batch_size: Images at once, besides one.
        rounds: Times that each is timed at most.
        threads: Of PyTorch on the CPU.
        limit: Seconds after which a measurement is ended.
        output: Where the results are kept, model by model: a file (FILE.json), with which the same command
            goes on after it was stopped, or a folder. Without it nothing is written.
        plot: PNG to draw: speed over parameters.
    """

    models: tuple[str, ...] = ()
    resolutions: tuple[int, ...] = (224, 512)
    rounds: int = 5
    threads: int | None = 1
    limit: float = 120.0
    plot: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        check_sizes("resolutions", self.resolutions)
        check_least(self, "", 1, "limit")


def run(options: CompareOptions) -> int:
    """Measure model by model, and show a table for each image size and class of size."""
    import torch

    from v2m.benchmark import comparison
    from v2m.cli.output import console
    from v2m.engine.progress import track
    from v2m.models.flops import CONVENTION
    from v2m.pictures.speed import plot_speed

    out, errors = console(), console(stderr=True)
    device, hardware = find_hardware(options, out)
    settings = comparison.ComparisonSettings(
        options.batch_size, options.rounds, options.limit, device, getattr(torch, options.dtype)
    )
    models = comparison.plan(options.models or comparison.default_models(), options.resolutions, settings)
    results = KeptRows("compare", options, hardware)
    known = {(row.model, row.resolution): row for row in _read_known(results.path, options, hardware)}
    results.rows += known.values()
    found: list[ComparedModel] = []
    try:
        for title, group in groupby(track(models, "comparing: model", len(models), errors), key=_title):
            rows: list[ComparedModel] = []
            try:
                for model in group:
                    row = known.get((model.model, model.resolution))
                    if row is None:
                        row = comparison.measure(model, settings)
                        results.keep([row])
                    rows.append(row)
            finally:
                if rows:
                    print_group(title, rows, out)
                    found += rows
    finally:
        if found:
            out.print()
            out.print(f"GMACs: {CONVENTION}")
            out.print(results.place)
    if options.plot:
        plot_speed(comparison.panels(found), Path(options.plot), f"{hardware.name}, {options.dtype}")
        out.print(f"plot: {options.plot}")
    return results.exit_code


def _title(model: "ComparedModel") -> str:
    return f"{model.resolution} px, {model.size_class}"


def _read_known(path: Path | None, options: CompareOptions, hardware: "Hardware") -> "list[ComparedModel]":
    """What a run of before has measured, if it was stopped or had fewer models.

    Raises:
        ValueError: the file is of another machine, of other settings, or no comparison.
    """
    from v2m.benchmark.comparison import ComparedModel
    from v2m.benchmark.hardware import hardware_name
    from v2m.benchmark.report import read_json

    if path is None or not path.exists():
        return []
    content = read_json(path, "output", "compare")
    mine = {"machine": hardware.name, "versions": hardware.versions}
    theirs = {
        "machine": hardware_name(content["hardware"]),
        "versions": content["hardware"]["versions"],
    }
    mine |= {name: getattr(options, name) for name in GONE_ON_WITH}
    theirs |= {name: content["settings"].get(name) for name in GONE_ON_WITH}
    for name, value in mine.items():
        if theirs[name] != value:
            raise ValueError(
                f"output: {path} is of {name} {theirs[name]}, here it is {value}: name another file"
            )
    return [ComparedModel.of(row) for row in content["rows"]]
