"""The annotations of a COCO file as arrays, read and cleaned."""

import pickle
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from v2m.data.coco.faults import ROUNDING, Fault, Flags, Problems, list_faults
from v2m.data.coco.records import Records
from v2m.data.coco.segmentations import read_segmentation
from v2m.data.coco.values import AREA, BOX, FLAG, ID, MOST_SHOWN, WHOLE, Field, cut
from v2m.system.errors import few

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]


class Table(NamedTuple):
    """Annotations in order of their images. Arrays, since worker processes share them without copying.

    Attributes:
        ids: COCO's id of each: whole numbers or texts, as they are in the file.
        images: Indices of their images ``[N]``.
        labels: Class indices ``[N]``.
        boxes: Left, top, width and height ``[N, 4]``.
        areas: Pixels ``[N]``.
        crowd: Whether it is several objects at once ``[N]``.
        segments: Their masks as in the file, one after the other; empty if none has one.
        ends: Where in ``segments`` each one ends ``[N]``.
    """

    ids: Sequence[Any]
    images: Integers
    labels: Integers
    boxes: Floats
    areas: Floats
    crowd: Flags
    segments: bytes
    ends: Integers

    def of_image(self, image: int) -> slice:
        """The rows of an image, which are next to each other."""
        first, end = np.searchsorted(self.images, (image, image + 1)).tolist()
        return slice(first, end)

    def segmentation(self, row: int) -> Any:
        """The mask of an annotation, as in the file."""
        start = int(self.ends[row - 1]) if row else 0
        return pickle.loads(self.segments[start : int(self.ends[row])])


def make_table(
    records: Records, category_ids: Sequence[int], masks: bool = True
) -> tuple[Table, list[Fault]]:
    """Read annotations, cut boxes at the edges of their images, and leave out what cannot be used.

    Args:
        records: The file.
        category_ids: COCO's id of each class.
        masks: Whether masks are used; if not, they are not looked at.

    Returns:
        The table, and what is wrong with annotations, in their order.
    """
    problems: Problems = {}
    images = _indices(records, "image_id", ID, [image["id"] for image in records.images], problems)
    labels = _indices(records, "category_id", WHOLE, category_ids, problems)
    crowd = np.array(_column(records, "iscrowd", FLAG, False, problems), np.bool_)
    boxes, is_cut = _cut_boxes(records, images, problems)
    areas = _areas(records, boxes, problems)
    segments = _pack(records, images, problems) if masks else {}
    # What cannot be used goes, the rest is put in order of the images, and of the file within an image.
    order = np.array([row for row in range(len(images)) if row not in problems], np.int64)
    order = order[np.argsort(images[order], kind="stable")]
    pieces = [segments[row] for row in order.tolist()] if segments else []
    table = Table(
        ids=[records.annotations[row].get("id") for row in order.tolist()],
        images=images[order],
        labels=labels[order],
        boxes=boxes[order],
        areas=areas[order],
        crowd=crowd[order],
        segments=b"".join(pieces),
        ends=np.cumsum([len(piece) for piece in pieces], dtype=np.int64),
    )
    return table, list_faults(records, problems, is_cut)


def _column(records: Records, name: str, field: Field, other: Any, problems: Problems) -> list[Any]:
    """A field of every annotation; ``other`` where it is not what it should be."""
    values = [field.read(annotation.get(name)) for annotation in records.annotations]
    for row, value in enumerate(values):
        if value is not None:
            continue
        values[row] = other
        given = records.annotations[row]
        found = f"{name} {cut(given[name])}" if name in given else f"no {name}"
        problems.setdefault(row, (name, f"has {found}, expected {field.expected}"))
    return values


def _indices(
    records: Records, name: str, field: Field, ids: Sequence[int | str], problems: Problems
) -> Integers:
    """Where in ``ids`` a field of every annotation is; 0 where it is not."""
    index_of = {id: index for index, id in enumerate(ids)}
    values = _column(records, name, field, None, problems)
    indices = [index_of.get(value, -1) for value in values]
    unknown = [row for row, index in enumerate(indices) if index < 0]
    known = few([str(id)[:MOST_SHOWN] for id in ids]) if unknown else ""
    for row in unknown:
        indices[row] = 0
        problems.setdefault(row, (name, f"has {name} {cut(values[row])}, known: {known}"))
    return np.array(indices, np.int64)


def _cut_boxes(records: Records, images: Integers, problems: Problems) -> tuple[Floats, Flags]:
    """Boxes within their images, and which of them were not; those that were are as in the file."""
    given = np.array(_column(records, "bbox", BOX, [0.0, 0.0, 1.0, 1.0], problems), np.float64)
    given = given.reshape(-1, 4)
    sizes = np.array([(image["width"], image["height"]) for image in records.images], np.float64)[images]
    corners = np.stack([given[:, :2], given[:, :2] + given[:, 2:]], 1)
    within = corners.clip(0, sizes[:, None])
    moved = np.abs(within - corners).max((1, 2), initial=0)
    # A box that was not cut stays exactly as it is in the file.
    boxes = np.where(moved[:, None] > 0, np.hstack([within[:, 0], within[:, 1] - within[:, 0]]), given)
    # Detectors take boxes in single precision: a very thin one may have no area there.
    rounded = np.hstack([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]]).astype(np.float32)
    for row in np.flatnonzero((rounded[:, 2:] <= rounded[:, :2]).any(1)).tolist():
        box = cut(records.annotations[row].get("bbox"))
        problems.setdefault(row, ("bbox", f"has bbox {box}, which has no area in its image"))
    return boxes, moved > ROUNDING


def _areas(records: Records, boxes: Floats, problems: Problems) -> Floats:
    """The area of every annotation: that of its box where the file says none, or 0."""
    of_boxes = (boxes[:, 2] * boxes[:, 3]).tolist()
    areas = []
    for row, annotation in enumerate(records.annotations):
        given = annotation.get("area")
        area = 0.0 if given is None else AREA.read(given)
        if area is None:
            problems.setdefault(row, ("area", f"has area {cut(given)}, expected {AREA.expected}"))
        areas.append(area or of_boxes[row])
    return np.array(areas, np.float64)


def _pack(records: Records, images: Integers, problems: Problems) -> dict[int, bytes]:
    """The masks of annotations without problems, by their index in the file; none where there are none."""
    found = [annotation.get("segmentation") for annotation in records.annotations]
    if not any(segmentation and segmentation != [[]] for segmentation in found):
        return {}
    pieces = {}
    for row, segmentation in enumerate(found):
        if row in problems:
            continue
        image = records.images[images[row]]
        try:
            # As bytes, since millions of lists would be copied by every process that reads images.
            mask = read_segmentation(segmentation, image["height"], image["width"])
            pieces[row] = pickle.dumps(mask, pickle.HIGHEST_PROTOCOL)
        except ValueError as error:
            problems[row] = "segmentation", str(error)
    return pieces
