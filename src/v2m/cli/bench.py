"""``v2m bench``: run a benchmark, show its tables, keep its results."""

from collections.abc import Callable, Iterator
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

import torch

from v2m.benchmark import models, operators, roofline
from v2m.benchmark.competitors import find_competitors
from v2m.benchmark.hardware import Hardware
from v2m.benchmark.report import Row, file_name, table, write_json
from v2m.benchmark.timing import Tracker
from v2m.cli.output import console
from v2m.engine.device import find_device
from v2m.engine.progress import track
from v2m.pictures.scaling import plot_scaling

Tables = Iterator[tuple[str, list[Row]]]


def run(options: Any) -> int:
    """``v2m bench``: 1 if a competitor was wrong or failed."""
    out, errors = console(), console(stderr=True)
    topic, settings = options.topic, options[options.topic]
    if settings.threads:
        torch.set_num_threads(settings.threads)
    device = find_device(settings.device)
    hardware = Hardware.of(device)
    results = Path(settings.output) / file_name(topic, hardware, f"{datetime.now():%Y%m%d-%H%M%S}")
    machine = f"{hardware.name}, {settings.dtype}"
    out.print(f"{machine}, {hardware.kernels} kernels, load {hardware.load}")
    rows: list[Row] = []
    try:
        for title, group in TOPICS[topic](settings, device, partial(track, console=errors)):
            rows += group
            # After every group, so that a long benchmark that is stopped has left something.
            write_json(results, topic, hardware, vars(settings), rows)
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
    if settings.get("plot"):
        panels, size = PLOTS[topic]
        plot_scaling(panels(rows), size, Path(settings.plot), machine)
        out.print(f"plot: {settings.plot}")
    return 1 if any(getattr(row, "problem", None) for row in rows) else 0


def _operators(settings: Any, device: torch.device, track: Tracker) -> Tables:
    names = find_competitors(settings.competitors, device)
    workloads = [_workload(settings, grid, device) for grid in settings.grids]
    groups = operators.bench_operators(workloads, names, settings.rounds, settings.memory, track)
    for group in groups:
        grid = group[0].grid
        yield f"{group[0].mode}, {grid}x{grid} tokens, batch {settings.batch_size}", [*group]


def _models(settings: Any, device: torch.device, track: Tracker) -> Tables:
    choices = [models.ModelChoice.parse(text) for text in dict.fromkeys(settings.models)]
    dtype = getattr(torch, settings.dtype)
    sizes, batch_size, rounds = settings.resolutions, settings.batch_size, settings.rounds
    groups = models.bench_models(choices, sizes, batch_size, rounds, device, dtype, settings.memory, track)
    for group in groups:
        yield f"{group[0].mode}, {group[0].resolution} px, batch {batch_size}", [*group]


def _roofline(settings: Any, device: torch.device, track: Tracker) -> Tables:
    rows = roofline.bench_roofline(_workload(settings, settings.grid, device), settings.rounds, track)
    limits = rows[0].ceilings
    yield (
        f"ceilings: {limits.exps / 1e9:,.2f} Gexp/s, {limits.flops / 1e9:,.0f} GFLOP/s, "
        f"{limits.bytes / 1e9:,.1f} GB/s",
        [*rows],
    )


def _workload(settings: Any, grid: int, device: torch.device) -> operators.Workload:
    dtype = getattr(torch, settings.dtype)
    return operators.Workload(grid, settings.batch_size, settings.channels, settings.states, dtype, device)


TOPICS: dict[str, Callable[[Any, torch.device, Tracker], Tables]] = {
    "operators": _operators,
    "models": _models,
    "roofline": _roofline,
}
PLOTS: dict[str, Any] = {
    "operators": (operators.panels, "height and width in tokens"),
    "models": (models.panels, "height and width in pixels"),
}
