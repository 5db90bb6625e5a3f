"""The annotations of a COCO file as arrays, checked and cleaned."""

import pickle
from collections.abc import Sequence
from math import isfinite
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from v2m.data.coco_files import Records
from v2m.data.errors import DataError, few, shown

ROUNDING = 0.05
"""Pixels that a box may reach beyond its image unnoticed: boxes are written with two decimals."""
FARTHEST = 1e6
"""Pixels from which a coordinate is taken for damage."""
LEAST_POLYGON = 6
"""Numbers of a triangle; what has fewer has no pixels."""

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]
Mask = npt.NDArray[np.uint8]


class Table(NamedTuple):
    """Annotations in order of their images. Arrays, since worker processes share them without copying.

    Attributes:
        ids: COCO's id of each ``[N]``.
        images: Places of their images ``[N]``.
        labels: Class indices ``[N]``.
        boxes: Left, top, width and height ``[N, 4]``.
        areas: Pixels ``[N]``.
        crowd: Whether it is several objects at once ``[N]``.
        segments: Their masks as in the file, one after the other; empty if none has one.
        ends: Where in ``segments`` each one ends ``[N]``.
    """

    ids: Integers
    images: Integers
    labels: Integers
    boxes: Floats
    areas: Floats
    crowd: npt.NDArray[np.bool_]
    segments: bytes
    ends: Integers

    def of_image(self, place: int) -> slice:
        """Where the annotations of an image are."""
        first, end = np.searchsorted(self.images, (place, place + 1)).tolist()
        return slice(first, end)

    def segmentation(self, place: int) -> Any:
        """The mask of an annotation, as in the file."""
        start = int(self.ends[place - 1]) if place else 0
        return pickle.loads(self.segments[start : int(self.ends[place])])


def make_table(records: Records, category_ids: Sequence[int]) -> tuple[Table, list[str]]:
    """Check annotations, cut boxes at the edges of their images, and leave out those of no area.

    Args:
        records: The file.
        category_ids: COCO's id of each class.

    Returns:
        The table, and a line for each kind of thing that was changed.

    Raises:
        DataError: an annotation is of no image or class, or is damaged.
    """
    images = _places(records, "image_id", [image["id"] for image in records.images])
    labels = _places(records, "category_id", category_ids)
    boxes, beyond = _cut_boxes(records, images)
    corners = np.hstack([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]]).astype(np.float32)
    has_area = (corners[:, 2:] > corners[:, :2]).all(1)
    warnings = []
    for what, found in (
        ("boxes that reach beyond their images, which are cut", beyond & has_area),
        ("boxes of no area, which are left out", ~has_area),
    ):
        if found.any():
            first = _where(records, int(found.argmax()))
            warnings.append(f"{records.path}: {np.count_nonzero(found):,} {what}, first {first}")
    order = np.flatnonzero(has_area)
    order = order[np.argsort(images[order], kind="stable")]
    segments, ends = _pack(records, order, images)
    annotations = records.annotations
    table = Table(
        ids=np.array([annotation["id"] for annotation in annotations], np.int64)[order],
        images=images[order],
        labels=labels[order],
        boxes=boxes[order],
        areas=_areas(records, boxes)[order],
        crowd=np.array([bool(annotation.get("iscrowd")) for annotation in annotations], np.bool_)[order],
        segments=segments,
        ends=ends,
    )
    return table, warnings


def _places(records: Records, field: str, ids: Sequence[int]) -> Integers:
    """Where in ``ids`` a field of every annotation is."""
    place_of = {id: place for place, id in enumerate(ids)}
    places = [place_of.get(annotation[field], -1) for annotation in records.annotations]
    if -1 in places:
        unknown = places.index(-1)
        known = few([str(id) for id in ids])
        raise _error(records, unknown, f"has {field} {records.annotations[unknown][field]}, known: {known}")
    return np.array(places, np.int64)


def _cut_boxes(records: Records, images: Integers) -> tuple[Floats, npt.NDArray[np.bool_]]:
    """Boxes within their images, and which of them were not; those that were are as in the file."""
    boxes = [annotation["bbox"] for annotation in records.annotations]
    for place, box in enumerate(boxes):
        if len(box) != 4 or not _are_numbers(box):
            raise _error(records, place, f"has bbox {str(box)[:60]}, expected four finite numbers")
    given = np.array(boxes, np.float64).reshape(-1, 4)
    sizes = np.array([(image["width"], image["height"]) for image in records.images], np.float64)[images]
    corners = np.stack([given[:, :2], given[:, :2] + given[:, 2:]], 1)
    cut = corners.clip(0, sizes[:, None])
    changed = np.abs(cut - corners).max((1, 2), initial=0)
    within = np.hstack([cut[:, 0], cut[:, 1] - cut[:, 0]])
    return np.where(changed[:, None] > 0, within, given), changed > ROUNDING


def _are_numbers(values: Sequence[Any]) -> bool:
    """Whether all are finite, and none is out of all bounds. Built-ins are ten times as fast as a loop."""
    try:
        return not values or (isfinite(sum(values)) and min(values) > -FARTHEST and max(values) < FARTHEST)
    except (TypeError, OverflowError):
        return False


def _areas(records: Records, boxes: Floats) -> Floats:
    """The area of every annotation: that of its box where the file says none."""
    areas = [annotation.get("area") for annotation in records.annotations]
    for place, (area, box) in enumerate(zip(areas, boxes, strict=True)):
        if area is None:
            areas[place] = box[2] * box[3]
        elif not isinstance(area, int | float) or not 0 <= area < FARTHEST**2:
            raise _error(records, place, f"has area {str(area)[:40]}, expected a number")
    return np.array(areas, np.float64)


def _pack(records: Records, order: Integers, images: Integers) -> tuple[bytes, Integers]:
    """The masks of annotations in this order, one after the other, and where each one ends."""
    found = [records.annotations[place].get("segmentation") for place in order.tolist()]
    if not any(segmentation and segmentation != [[]] for segmentation in found):
        return b"", np.zeros(0, np.int64)
    pieces = []
    for place, segmentation in zip(order.tolist(), found, strict=True):
        image = records.images[images[place]]
        if problem := _mask_problem(segmentation, image["height"], image["width"]):
            raise _error(records, place, problem)
        pieces.append(pickle.dumps(segmentation, pickle.HIGHEST_PROTOCOL))
    return b"".join(pieces), np.cumsum([len(piece) for piece in pieces])


def _mask_problem(segmentation: Any, height: int, width: int) -> str:
    """What is wrong with a mask; empty if nothing is."""
    if not segmentation:
        return "has no segmentation, but others have one"
    if isinstance(segmentation, dict):
        size, counts = segmentation.get("size"), segmentation.get("counts")
        if size != [height, width]:
            return f"has a mask of size {size}, expected that of its image, [{height}, {width}]"
        if isinstance(counts, str):
            return ""
        if not isinstance(counts, list) or not all(isinstance(n, int) and n >= 0 for n in counts):
            return "has a mask whose counts are no list of whole numbers, nor text"
        if sum(counts) != height * width:
            return f"has a mask of {sum(counts)} pixels, expected {height * width}"
        return ""
    if not isinstance(segmentation, list) or not all(isinstance(points, list) for points in segmentation):
        return "has a segmentation that is neither polygons nor runs"
    for points in segmentation:
        if len(points) % 2 or not _are_numbers(points):
            return "has a polygon that is no list of finite x and y"
    if max(map(len, segmentation)) < LEAST_POLYGON:
        return "has no polygon of three points or more"
    return ""


def _error(records: Records, place: int, problem: str) -> DataError:
    return DataError(f"data: {records.path}: {_where(records, place)} {problem}")


def _where(records: Records, place: int) -> str:
    """An annotation in words."""
    annotation = records.annotations[place]
    image = annotation["image_id"]
    name = next((other["file_name"] for other in records.images if other["id"] == image), None)
    return f"annotation {annotation['id']} of image {image}" + (f" ({shown(name)})" if name else "")


def mask_api() -> Any:
    """What decodes masks.

    Raises:
        ValueError: it is not installed.
    """
    try:
        from faster_coco_eval.core import mask  # type: ignore[import-untyped]
    except ModuleNotFoundError:
        raise ValueError("masks need the faster-coco-eval library: pip install 'v2m[detection]'") from None
    return mask


def decode_mask(api: Any, segmentation: Any, height: int, width: int) -> Mask:
    """The pixels ``[H, W]`` of polygons, or of runs as a list or as text.

    Raises:
        ValueError or RuntimeError: the text is damaged.
    """
    if isinstance(segmentation, list):
        polygons = [points for points in segmentation if len(points) >= LEAST_POLYGON]
        segmentation = api.merge(api.frPyObjects(polygons, height, width))
    elif isinstance(segmentation["counts"], list):
        segmentation = api.frPyObjects(segmentation, height, width)
    mask: Mask = api.decode([segmentation])[:, :, 0]
    return mask
