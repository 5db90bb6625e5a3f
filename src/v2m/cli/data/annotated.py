"""``v2m data check`` for images with objects or masks: tables, pictures and a list of what was found."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt
from PIL import Image
from rich.console import Console

from v2m.data import read_image
from v2m.data.check.annotated import AnnotatedSplit, find_annotated_problems
from v2m.data.check.facts import inspect_all
from v2m.data.check.problems import (
    KINDS,
    SERIOUS,
    Problem,
    summarise_facts,
    worst_first,
    write_problems,
)
from v2m.data.coco.check import ObjectsCheck
from v2m.data.errors import UnreadableImageError
from v2m.data.masks.check import MasksCheck
from v2m.data.sample import sample_first
from v2m.engine.progress import track
from v2m.pictures import plot_classes
from v2m.pictures.objects import Drawn, draw_objects
from v2m.pictures.samples import plot_samples
from v2m.pictures.segments import overlay
from v2m.system.tables import Column, Kind, TextTable

PROBLEMS = "problems.jsonl"
SAMPLES, SIDE = 12, 480
"""Images of the picture, and pixels of their longer sides."""

Picture: TypeAlias = Image.Image | npt.NDArray[np.uint8]


class _Kind(NamedTuple):
    """What differs between a check of objects and one of masks.

    Attributes:
        name: What is checked.
        unit: What is counted of each class.
        counts: Picture of the classes.
        sheet: Picture of some images.
        draw: Makes the images of that picture.
    """

    name: str
    unit: str
    counts: str
    sheet: str
    draw: Callable[[Any], Iterator[Picture]]


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


def check(
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
    # Objects and masks are looked at one after the other; their problems go into one list.
    for checks, kind in ((objects, OBJECTS), (masks, MASKS)):
        if not checks:
            continue
        splits = [_look(check, kind.name, settings.workers, errors) for check in checks]
        problems += find_annotated_problems(splits, settings.tiny)
        names |= dict.fromkeys(split.name for split in splits)
        out.print(_table(splits, kind.name))
        out.print()
        counts = {split.name: split.counts for split in splits}
        plot_classes(counts, output / kind.counts, f"Classes of {title}", kind.unit)
        pictures = list(islice(kind.draw(checks[0]), SAMPLES))
        plot_samples(pictures, list(splits[0].counts), output / kind.sheet, f"{title}: {splits[0].name}")
        files += [kind.counts, kind.sheet]
    # A folder that is checked as both has its images' problems twice: each is told once.
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


def _table(splits: Sequence[AnnotatedSplit], what: str) -> TextTable:
    table = TextTable(Column(what, Kind.NAME), *(Column(split.name, Kind.TEXT) for split in splits))
    columns = [_cells(split) for split in splits]
    for row in columns[0]:
        table.add_row(row, *(cells[row] for cells in columns))
    return table


def _cells(split: AnnotatedSplit) -> dict[str, str]:
    summary = summarise_facts(split.facts, split.counts)
    counts, images = summary.counts, sum(summary.modes.values())
    largest, smallest = extremes(counts)
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


def _draw_objects(check: ObjectsCheck) -> Iterator[Picture]:
    """Images with their objects, as training has them, first some from all over the split."""
    data = check.data
    for index in sample_first(len(data), SAMPLES):
        try:
            image, objects = data.read(index), data.objects(index)
        except UnreadableImageError:
            continue
        captions = [
            f"{data.classes[label]} (crowd)" if crowd else data.classes[label]
            for label, crowd in zip(objects.labels.tolist(), objects.crowd.tolist(), strict=True)
        ]
        yield draw_objects(image, Drawn(objects.boxes, objects.labels, captions, objects.masks), SIDE)


def _draw_masks(check: MasksCheck) -> Iterator[Picture]:
    """Images with their labels in colour, from all over the split."""
    for index in sample_first(len(check), SAMPLES):
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


OBJECTS = _Kind("objects", "objects", "classes.png", "objects.png", _draw_objects)
MASKS = _Kind("masks", "pixels", "pixels.png", "masks.png", _draw_masks)


def extremes(counts: Mapping[str, int]) -> tuple[str, str]:
    """The class of which there is most, and that of which there is least, with their numbers."""
    if not counts:
        return "-", "-"
    largest, smallest = max(counts, key=counts.__getitem__), min(counts, key=counts.__getitem__)
    return f"{counts[largest]:,} {largest}", f"{counts[smallest]:,} {smallest}"


def spread(values: Sequence[int]) -> str:
    """Least, largest and median in words."""
    if not values:
        return "-"
    least, middle, most = values
    return f"{least}" if least == most else f"{least} to {most}, median {middle}"


def problem_table(problems: Sequence[Problem], splits: Sequence[str]) -> TextTable:
    """How many problems of each kind there are in each split, and the first."""
    texts = Column("meaning", Kind.TEXT), Column("first", Kind.TEXT)
    table = TextTable(Column("problem", Kind.NAME), *map(Column, splits), *texts)
    counts = Counter((problem.kind, problem.split) for problem in problems)
    for kind, meaning in KINDS.items():
        first = next((problem for problem in problems if problem.kind == kind), None)
        if first:
            shown = f"{first.image}: {first.detail}" if first.image else first.detail
            table.add_row(kind, *(f"{counts[kind, split]:,}" for split in splits), meaning, shown)
    return table
