"""Measure the models of a file of results again, and show both beside each other."""

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from v2m.cli.bench.models import ModelsOptions
from v2m.cli.bench.report import KeptRows, find_hardware, print_group
from v2m.cli.options import DeviceOptions, positional
from v2m.tasks.checks import check_least

TAKEN = ("models", "resolutions", "batch_size", "dtype")
"""Settings that are those of the file."""


@dataclass(frozen=True, kw_only=True)
class RepeatOptions(DeviceOptions):
    """Options of ``v2m bench repeat``.

    Attributes:
        file: Results of ``v2m bench models``: models, sizes, batch and threads are as there.
        rounds: Times that each is timed; as in the file unless given.
        output: Where the new results are kept: a file (FILE.json), or a folder, where they are named by
            machine and date. Without it nothing is written.
    """

    file: str = positional()
    rounds: int | None = None
    output: str | None = None

    def __post_init__(self) -> None:
        check_least(self, "", 1, "rounds")


def run(options: RepeatOptions) -> int:
    """Measure as it was measured there; peak memory is left out, which takes as long again."""
    import torch

    from v2m.benchmark import models
    from v2m.benchmark.hardware import hardware_name
    from v2m.benchmark.repetition import beside
    from v2m.benchmark.report import read_json
    from v2m.cli.output import console
    from v2m.engine.progress import track

    out, errors = console(), console(stderr=True)
    saved = read_json(Path(options.file), "file", "models")
    chosen = _as_there(saved, options)
    device, hardware = find_hardware(chosen, out)
    out.print(f"beside {options.file}: {hardware_name(saved['hardware'])}")
    results = KeptRows("models", chosen, hardware)
    results.refuse_to_replace()
    choices = [models.ModelChoice.parse(text) for text in chosen.models]
    groups = models.bench_models(
        choices,
        chosen.resolutions,
        chosen.batch_size,
        chosen.rounds,
        device,
        getattr(torch, chosen.dtype),
        chosen.memory,
        partial(track, console=errors),
    )
    try:
        for group in groups:
            results.keep(group)
            title = f"{group[0].mode}, {group[0].resolution} px, batch {chosen.batch_size}"
            print_group(title, beside(group, saved["rows"]), out)
    finally:
        if results.rows:
            out.print()
            out.print(results.place)
    return results.exit_code


def _as_there(saved: dict[str, Any], options: RepeatOptions) -> ModelsOptions:
    """The options with which the file was measured, for the device and the output of now."""
    settings = {name: saved["settings"][name] for name in TAKEN}
    settings |= {name: tuple(settings[name]) for name in ("models", "resolutions")}
    return ModelsOptions(
        **settings,
        rounds=options.rounds or saved["settings"]["rounds"],
        threads=saved["hardware"]["threads"],
        device=options.device,
        memory=False,
        output=options.output,
    )
