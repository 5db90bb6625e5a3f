"""``v2m data check`` for images with objects or masks: tables, pictures and a list of what was found."""

from collections import Counter
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from rich.console import Console
from rich.table import Table

from v2m.data import read_image
from v2m.data.check import (
    KINDS,
    SERIOUS,
    Problem,
    inspect_all,
    summarise_facts,
    worst_first,
    write_problems,
)
from v2m.data.check_annotated import AnnotatedSplit, find_annotated_problems
from v2m.data.coco.check import ObjectsCheck
from v2m.data.errors import UnreadableImageError
from v2m.data.masks.check import MasksCheck
from v2m.engine.progress import track
from v2m.pictures import plot_classes
from v2m.pictures.objects import Drawn, draw_objects
from v2m.pictures.samples import plot_samples
from v2m.pictures.segments import overlay

PROBLEMS = "problems.jsonl"
OBJECTS, OBJECT_COUNTS = "objects.png", "classes.png"
MASKS, MASK_COUNTS = "masks.png", "pixels.png"
SAMPLES, SIDE = 12, 480
"""Images of the picture, and pixels of their longer sides."""


class AnnotatedSettings(NamedTuple):
    """How to check.

    Attributes:
        title: Name of the dataset.
        output: Where files go.
        workers: Processes that decode images.
        tiny: Pixels that each side of an image should have.
    """

    title: str
    output: Path
    workers: int
    tiny: int


def run(
    objects: Sequence[ObjectsCheck],
    masks: Sequence[MasksCheck],
    settings: AnnotatedSettings,
    out: Console,
    errors: Console,
) -> int:
    """Check objects, masks, or both; 1 if there is something that training would stumble over.

    Args:
        objects: Splits with objects.
        masks: Splits with masks.
        settings: How.
        out: Where tables go.
        errors: Where progress goes.
    """
    output, title = settings.output, settings.title
    output.mkdir(parents=True, exist_ok=True)
    problems: list[Problem] = []
    files: list[str] = []
    names: dict[str, None] = {}
    for checks, what in ((objects, "objects"), (masks, "masks")):
        if not checks:
            continue
        splits = [_look(check, what, settings.workers, errors) for check in checks]
        problems += find_annotated_problems(splits, settings.tiny)
        names |= dict.fromkeys(split.name for split in splits)
        out.print(_table(splits, what))
        out.print()
        counts = {split.name: split.counts for split in splits}
        counted, sheet = (OBJECT_COUNTS, OBJECTS) if what == "objects" else (MASK_COUNTS, MASKS)
        unit = "objects" if what == "objects" else "pixels"
        plot_classes(counts, output / counted, f"Classes of {title}", unit)
        pictures = _draw_objects(objects[0]) if what == "objects" else _draw_masks(masks[0])
        plot_samples(pictures, list(splits[0].counts), output / sheet, f"{title}: {splits[0].name}")
        files += [counted, sheet]
    problems = worst_first(problems)
    write_problems(problems, output / PROBLEMS)
    out.print(problem_table(problems, list(names)) if problems else "no problems found")
    for line in (line for check in objects for line in check.data.absent):
        out.print(f"warning: {line}")
    out.print()
    out.print(f"list: {output / PROBLEMS}")
    for file in files:
        out.print(f"picture: {output / file}")
    return 1 if any(problem.kind in SERIOUS for problem in problems) else 0


def _look(check: ObjectsCheck | MasksCheck, what: str, workers: int, errors: Console) -> AnnotatedSplit:
    looks = inspect_all(check.look, len(check), workers)
    return check.finish(list(track(looks, f"{check.name} {what}: image", len(check), errors)))


def _table(splits: Sequence[AnnotatedSplit], what: str) -> Table:
    table = Table(what, *(split.name for split in splits), box=None, header_style="bold")
    columns = [_cells(split) for split in splits]
    for row in columns[0]:
        table.add_row(row, *(cells[row] for cells in columns))
    return table


def _cells(split: AnnotatedSplit) -> dict[str, str]:
    summary = summarise_facts(split.facts, split.counts)
    counts, images = summary.counts, sum(summary.modes.values())
    largest, smallest = (
        f"{counts[name]:,} {name}" if (name := choose(counts, key=counts.__getitem__, default="")) else "-"
        for choose in (max, min)
    )
    turned = sum(look.orientation > 1 for look in split.looks)
    return {
        "images": f"{len(split.looks):,}",
        **{name: f"{number:,}" for name, number in split.numbers.items()},
        "classes": f"{len(counts):,}",
        "largest class": largest,
        "smallest class": smallest,
        "widths": spread(summary.widths),
        "heights": spread(summary.heights),
        "modes": ", ".join(f"{mode} {count / images:.0%}" for mode, count in summary.modes.items()) or "-",
        "turned by EXIF": f"{turned:,}",
    }


def _draw_objects(check: ObjectsCheck) -> list[Any]:
    """Images with their objects, as training has them."""
    return list(islice(_drawn_objects(check), SAMPLES))


def _drawn_objects(check: ObjectsCheck) -> Any:
    data = check.data
    for index in _spread_out(len(data)):
        try:
            image, objects = data.read(index), data.objects(index)
        except UnreadableImageError:
            continue
        captions = [
            f"{data.classes[label]} (crowd)" if crowd else data.classes[label]
            for label, crowd in zip(objects.labels.tolist(), objects.crowd.tolist(), strict=True)
        ]
        yield draw_objects(image, Drawn(objects.boxes, objects.labels, captions, objects.masks), SIDE)


def _draw_masks(check: MasksCheck) -> list[Any]:
    """Images with their labels in colour."""
    return list(islice(_drawn_masks(check), SAMPLES))


def _drawn_masks(check: MasksCheck) -> Any:
    for index in _spread_out(len(check)):
        try:
            image = read_image(check.data.name(index))
            labels = check.labels(index, image.size)
        except UnreadableImageError:
            continue
        if labels is None or labels.shape != (image.height, image.width):
            continue
        classes = len(check.classes) if check.classes else int(labels.max(initial=0)) + 1
        picture = overlay(image, labels, classes)
        step = max(1, max(picture.shape) // SIDE)
        yield np.ascontiguousarray(picture[::step, ::step])


def _spread_out(count: int) -> list[int]:
    """All numbers, first some that are far apart."""
    step = max(1, count // SAMPLES)
    first = list(range(0, count, step))
    return first + [number for number in range(count) if number % step]


def spread(values: Sequence[int]) -> str:
    """Least, largest and median in words."""
    if not values:
        return "-"
    least, middle, most = values
    return f"{least}" if least == most else f"{least} to {most}, median {middle}"


def problem_table(problems: Sequence[Problem], splits: Sequence[str]) -> Table:
    """How many problems of each kind there are in each split, and the first."""
    table = Table("problem", *splits, "meaning", "first", box=None, header_style="bold")
    for column in table.columns[1 : 1 + len(splits)]:
        column.justify = "right"
    counts = Counter((problem.kind, problem.split) for problem in problems)
    for kind, meaning in KINDS.items():
        first = next((problem for problem in problems if problem.kind == kind), None)
        if first:
            shown = f"{first.image}: {first.detail}" if first.image else first.detail
            table.add_row(kind, *(f"{counts[kind, split]:,}" for split in splits), meaning, shown)
    return table
