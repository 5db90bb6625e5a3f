"""``v2m data``: ``check`` looks at every image of a dataset, shows what was found and keeps a list of it."""

from pathlib import Path
from typing import Any

from rich.console import Console

from v2m.cli import annotated, scenes
from v2m.cli.annotated import AnnotatedSettings, extremes, problem_table, spread
from v2m.cli.output import console
from v2m.data import find_splits
from v2m.data.check.problems import SERIOUS, Summary, write_problems
from v2m.data.classes.check import CheckedSplit, find_problems, inspect_images, summarise
from v2m.data.classes.division import Division
from v2m.data.classes.formats import missing_images
from v2m.data.coco.check import find_object_checks
from v2m.data.masks.check import find_mask_checks
from v2m.engine.progress import track
from v2m.pictures import plot_classes
from v2m.system.machine import cores
from v2m.system.names import safe_name
from v2m.system.tables import Column, Kind, TextTable
from v2m.tasks.segmentation.config import InputConfig

PICTURE = "classes.png"


def run(options: Any) -> int:
    """``v2m data``: 1 if a check finds images that are unreadable, or in more than one split."""
    action = {"check": _check, "scenes": scenes.run}[options.action]
    return action(options[options.action], console(), console(stderr=True))


def _check(settings: Any, out: Console, errors: Console) -> int:
    """1 if images are unreadable or bombs, or are in more than one split."""
    source, data_dir = settings.source, Path(settings.data_dir)
    title = Path(source).resolve().name
    output = Path(settings.output or Path("runs", safe_name(f"data-check-{title}")))
    workers = cores() if settings.workers is None else settings.workers
    errors.print(f"checking {source}, with {workers} processes that read images")
    objects = find_object_checks(source, allow_outside=settings.allow_outside)
    labels = InputConfig(ignore_index=settings.input.ignore_index, label_map=settings.input.label_map)
    masks = find_mask_checks(source, labels.ignore_index, labels.label_map, data_dir=data_dir)
    if objects or masks:
        return annotated.run(
            objects, masks, AnnotatedSettings(title, output, workers, settings.tiny), out, errors
        )
    openers = find_splits(source, data_dir, allow_outside=settings.allow_outside, division=Division())
    if not openers:
        raise missing_images(Path(source))
    # A split at a time, with the classes that it has itself: the check goes on where training would stop.
    splits = []
    for name, opener in openers.items():
        data = opener()
        facts = track(inspect_images(data, workers), f"{name}: image", len(data), errors)
        splits.append(CheckedSplit(name, data, list(facts)))
    problems = find_problems(splits, settings.tiny)
    summaries = {split.name: summarise(split) for split in splits}

    output.mkdir(parents=True, exist_ok=True)
    write_problems(problems, output / annotated.PROBLEMS)
    plot_classes({name: s.counts for name, s in summaries.items()}, output / PICTURE, f"Classes of {title}")
    out.print(_summary_table(summaries))
    out.print()
    out.print(problem_table(problems, list(summaries)) if problems else "no problems found")
    for split in splits:
        for line in (*split.data.notes, *(f"warning: {line}" for line in split.data.warnings)):
            out.print(line)
    out.print()
    out.print(f"list: {output / annotated.PROBLEMS}")
    out.print(f"picture: {output / PICTURE}")
    return 1 if any(problem.kind in SERIOUS for problem in problems) else 0


def _summary_table(summaries: dict[str, Summary]) -> TextTable:
    rows = ("images", "classes", "largest class", "smallest class", "ratio", "widths", "heights", "modes")
    table = TextTable(Column("", Kind.NAME), *(Column(split, Kind.TEXT) for split in summaries))
    columns = [_summary_cells(summary) for summary in summaries.values()]
    for row, *cells in zip(rows, *columns, strict=True):
        table.add_row(row, *cells)
    return table


def _summary_cells(summary: Summary) -> list[str]:
    counts = summary.counts
    images = sum(counts.values())
    largest, smallest = extremes(counts)
    most, least = max(counts.values()), min(counts.values())
    ratio = f"{most / least:.1f}" if least else "-"
    modes = (f"{mode} {count / images:.0%}" for mode, count in summary.modes.items())
    return [
        f"{images:,}",
        f"{len(counts):,}",
        largest,
        smallest,
        ratio,
        spread(summary.widths),
        spread(summary.heights),
        ", ".join(modes) or "-",
    ]
