"""What is well formed in COCO files, but can hardly be meant: other units, or another order."""

from pathlib import Path

import numpy as np

from v2m.data.coco.segmentations import mask_api, mask_box
from v2m.data.coco.table import Floats, Integers, Table
from v2m.data.coco.values import cut
from v2m.data.sample import sample
from v2m.system.errors import DataError

CORNER = 2
"""Pixels that left and width add up to if both are shares of a side."""
SAMPLE = 200
"""Masks that are compared with their boxes; it takes a tenth of a second."""
LEAST_SIDE = 4
"""Pixels of a box below which its mask may be of another size, since masks are of whole pixels."""
LEAST_OVERLAP = 0.5
FEW = 0.1
"""Share of the masks that may not fit: annotators draw some boxes around what is hidden."""

MOST_REPEATED = 0.01
"""Share of the objects that may be there twice; COCO itself has some."""


def refuse_shares(path: Path, table: Table, sizes: Integers) -> None:
    """Refuse boxes whose numbers are shares of the image's sides.

    Args:
        path: The annotations.
        table: What is used of them.
        sizes: Height and width of every image ``[images, 2]``.

    Raises:
        DataError: all boxes are of such numbers.
    """
    boxes = table.boxes
    if not len(boxes) or boxes.max() > 1 or sizes.max() <= CORNER or (boxes == np.round(boxes)).all():
        return
    raise DataError(
        f"data: {path}: all {len(boxes):,} boxes end within two pixels of their images' corner, as if they "
        "were shares of the sides, expected left, top, width and height in pixels; the first: annotation "
        f"{cut(table.ids[0])} has bbox {_listed(boxes[0])}"
    )


def describe_repeated(source: str, table: Table) -> list[str]:
    """A line on objects that are there twice, if they are many, as where lists were joined.

    Args:
        source: The annotations.
        table: What is used of them.
    """
    rows = np.column_stack([table.images, table.labels, table.boxes])
    # Equal rows have equal sums; rows that are next to each other in that order are compared.
    mixed = (rows * np.sqrt([2, 3, 5, 7, 11, 13])).sum(1)  # sorted in a tenth of the time that rows take
    order = np.argsort(mixed, kind="stable")
    repeated = order[1:][(rows[order[1:]] == rows[order[:-1]]).all(1)]
    if len(repeated) <= MOST_REPEATED * len(rows):
        return []
    return [
        f"{source}: {len(repeated):,} of {len(rows):,} objects are there before, in the same image with the "
        f"same class and box, the first is annotation {cut(table.ids[int(repeated.min())])}; one object "
        "counts once"
    ]


def describe_misfits(source: str, table: Table, sizes: Integers) -> list[str]:
    """A line on masks that are elsewhere than their boxes, if there are many among some that are looked at.

    Args:
        source: The annotations.
        table: What is used of them, with masks.
        sizes: Height and width of every image ``[images, 2]``.
    """
    try:
        api = mask_api()
    except ValueError:
        return []
    large = np.flatnonzero((table.boxes[:, 2:].min(1) >= LEAST_SIDE) & ~table.crowd)
    looked = large[sample(len(large), SAMPLE)].tolist()
    odd = []
    for row in looked:
        height, width = sizes[table.images[row]].tolist()
        try:
            spans = mask_box(api, table.segmentation(row), height, width)
        except (ValueError, RuntimeError):  # told where the image is read
            continue
        if _overlap(table.boxes[row], spans) < LEAST_OVERLAP:
            odd.append((row, spans))
    if len(odd) <= max(1, FEW * len(looked)):
        return []
    row, spans = odd[0]
    return [
        f"{source}: {len(odd):,} of {len(looked):,} masks that were looked at do not fit their boxes, the "
        f"first: annotation {cut(table.ids[row])} has bbox {_listed(table.boxes[row])}, its mask spans "
        f"{_listed(spans)}; boxes are left, top, width and height, polygons x and y, all in pixels, and runs "
        "go down columns"
    ]


def _overlap(box: Floats, other: Floats) -> float:
    """Intersection of two boxes over their union."""
    starts, ends = np.stack([box[:2], other[:2]]), np.stack([box[:2] + box[2:], other[:2] + other[2:]])
    common = float((ends.min(0) - starts.max(0)).clip(0).prod())
    return common / (float(box[2:].prod()) + float(other[2:].prod()) - common)


def _listed(box: Floats) -> str:
    return f"[{', '.join(f'{number:g}' for number in box.tolist())}]"
