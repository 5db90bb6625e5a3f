"""Annotations of a COCO file that cannot be used, or not as they are, in words."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from v2m.data.coco.records import Records
from v2m.data.coco.values import BOX, ID, cut
from v2m.system.errors import DataError, shown

ROUNDING = 0.05
"""Pixels that a box may reach beyond its image unnoticed: boxes are written with two decimals."""

Flags = npt.NDArray[np.bool_]


class Fault(NamedTuple):
    """What is wrong with an annotation.

    Attributes:
        where: The annotation and its image, in words.
        image: Index of its image; None if that is not known.
        field: What is wrong of it.
        problem: How, such as "has category_id 99, known: 1, 2".
        is_left_out: Whether it is left out, and not only cut.
    """

    where: str
    image: int | None
    field: str
    problem: str
    is_left_out: bool


Problems = dict[int, tuple[str, str]]
"""The field and the problem of annotations that cannot be used, by their index in the file."""


def list_faults(records: Records, problems: Problems, is_cut: Flags) -> list[Fault]:
    """The annotations that are left out, and those whose boxes were cut, in words."""
    if not problems and not is_cut.any():  # as in most files, whose ids need no look-up then
        return []
    index_of = {image["id"]: index for index, image in enumerate(records.images)}
    faults = []
    for row in sorted({*problems, *np.flatnonzero(is_cut).tolist()}):
        annotation = records.annotations[row]
        beyond = f"has bbox {cut(annotation.get('bbox'))}, which reaches beyond its image"
        field, problem = problems.get(row, ("bbox", beyond))
        image_id = annotation.get("image_id")
        image = index_of.get(ID.read(image_id))
        name = "" if image is None else f" ({shown(records.images[image]['file_name'])})"
        which = cut(annotation["id"]) if "id" in annotation else f"number {row + 1}"
        where = f"annotation {which} of image {cut(image_id)}{name}"
        faults.append(Fault(where, image, field, problem, row in problems))
    return faults


def refuse_faults(path: Path, faults: Sequence[Fault]) -> None:
    """Raise where an annotation would be left out.

    Raises:
        DataError: one would; the message has the first.
    """
    fault = next((fault for fault in faults if fault.is_left_out), None)
    if fault:
        raise DataError(f"data: {path}: {fault.where} {fault.problem}")


def describe_faults(records: Records, faults: Sequence[Fault]) -> list[str]:
    """A line for each kind: how many annotations have it, and the first."""
    # A file may have a million faults of one kind: each kind is one line.
    kinds: dict[tuple[str, bool], list[Fault]] = {}
    for fault in faults:
        kinds.setdefault((fault.field, fault.is_left_out), []).append(fault)
    lines = []
    for (field, is_left_out), found in kinds.items():
        count = f"{len(found):,} of {len(records.annotations):,}"
        what = "boxes reach beyond their images and are cut"
        if is_left_out:
            what = f"annotations are left out for their {field}"
        line = f"{records.path}: {count} {what}, the first: {found[0].where} {found[0].problem}"
        # The likeliest reason is another convention, by which all boxes would fit.
        if not is_left_out and _fit_as_corners(records):
            line += (
                "; all boxes fit when read as left, top, right and bottom, but COCO's are left, top, width "
                "and height"
            )
        lines.append(line)
    return lines


def _fit_as_corners(records: Records) -> bool:
    """Whether all boxes are within their images when they are read as left, top, right and bottom."""
    sizes = {image["id"]: (image["width"], image["height"]) for image in records.images}
    for annotation in records.annotations:
        box, size = BOX.read(annotation.get("bbox")), sizes.get(ID.read(annotation.get("image_id")))
        if box is None or size is None:
            continue
        left, top, right, bottom = box
        if not (0 <= left < right <= size[0] + ROUNDING and 0 <= top < bottom <= size[1] + ROUNDING):
            return False
    return True


def describe_repeated_ids(records: Records) -> list[str]:
    """A line on ids of annotations that are there twice: they are names only, so all are kept."""
    ids = [ID.read(annotation.get("id")) for annotation in records.annotations]
    given = [id for id in ids if id is not None]
    twice = len(given) - len(set(given))
    if not twice:
        return []
    first = next(id for id, count in Counter(given).items() if count > 1)
    return [
        f"{records.path}: {twice:,} annotations have the id of another one, all are kept, the first: "
        f"{cut(first)}"
    ]
