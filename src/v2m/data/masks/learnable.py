"""Whether there is anything to learn from masks, by a look at their labels."""

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from v2m.data.errors import UnreadableImageError
from v2m.data.images import opened_image
from v2m.data.masks.dataset import VALUES, MaskedImages
from v2m.data.sample import sample, sample_first
from v2m.system.errors import DataError, few

SAMPLE = 128
"""Masks that are looked at, of a split that has more; all are where these show less than two classes."""
LEAST_LABELLED = 0.01
"""Share of labelled pixels below which there is nearly nothing to learn."""


class LabelCounts(NamedTuple):
    """Pixels in masks.

    Attributes:
        masks: Masks that were looked at.
        classes: Pixels of every class ``[classes]``.
        ignored: Pixels without a label, by their value in the masks ``[65536]``.
        unusable: What is wrong with the first mask that cannot be used; None where all can be.
        usable: Masks that can be used.
    """

    masks: int
    classes: Any
    ignored: Any
    unusable: UnreadableImageError | None
    usable: int


def count_labels(data: MaskedImages) -> LabelCounts:
    """Count the pixels of ``SAMPLE`` masks, spread over a split, and of more until there are two classes."""
    classes = np.zeros(len(data.classes), np.int64)
    ignored = np.zeros(VALUES, np.int64)
    masks = usable = 0
    unusable = None
    for index in sample_first(len(data), SAMPLE):
        masks += 1
        try:
            values, labels = data.read_labels(index)
        except UnreadableImageError as error:
            unusable = unusable or error
        else:
            usable += 1
            is_labelled = labels != data.ignore_index
            classes += np.bincount(labels[is_labelled], minlength=len(classes))
            ignored += np.bincount(values[~is_labelled], minlength=VALUES)
        # One class in a sample may be chance, so it takes all masks to say that there is no other.
        if masks >= SAMPLE and np.count_nonzero(classes) > 1:
            break
    return LabelCounts(masks, classes, ignored, unusable, usable)


def check_labels(data: MaskedImages, is_training: bool, warn: Callable[[str], None]) -> None:
    """Look whether masks have what can be learned and measured.

    Classes that a sample lacks are named if it lacks half of them: rare ones may be in other masks.

    Args:
        data: One split.
        is_training: Whether it is to train on, so that less than two classes are an error.
        warn: Called with a line for each thing that is odd.

    Raises:
        DataError: no mask can be used, no pixel has a label, or all have the same in training.
    """
    counts = count_labels(data)
    pixels, ignored = int(counts.classes.sum()), int(counts.ignored.sum())
    seen = np.flatnonzero(counts.classes)
    missing = [name for name, count in zip(data.classes, counts.classes, strict=True) if not count]
    is_whole = counts.masks == len(data)
    looked = f"{counts.masks:,} in all" if is_whole else f"{counts.masks:,} of {len(data):,} looked at"
    where = f"the masks of {data.source} ({looked})"

    # Nothing to learn from is an error.
    if not counts.usable:
        raise DataError(
            f"data: none of {where} can be used, the first is {counts.unusable}; values get other labels by "
            "--input.label_map"
        )
    if not pixels:
        raise DataError(f"data: no pixel of {where} has a label{_remedy(data, counts)}")
    if len(seen) == 1 and is_training:
        raise DataError(
            f"data: every labelled pixel of {where} is of the class {data.classes[seen[0]]}, so there is "
            f"nothing to learn{_remedy(data, counts)}"
        )

    # What is only odd is a warning.
    if missing and (is_whole or 2 * len(missing) >= len(data.classes)):
        lost = "they cannot be learned" if is_training else "scores say nothing of them"
        warn(f"{where} have no pixel of the classes {few(missing)}: {lost}{_remedy(data, counts)}")
    if pixels < LEAST_LABELLED * (pixels + ignored):
        share = pixels / (pixels + ignored)
        warn(f"{where} have a label for {share:.2%} of their pixels only{_remedy(data, counts)}")
    for line in _tell_other_colours(data):
        warn(line)


def _remedy(data: MaskedImages, counts: LabelCounts) -> str:
    """What to do where the most frequent value without a label may be that of a class without pixels."""
    value, total = int(counts.ignored.argmax()), counts.classes.sum() + counts.ignored.sum()
    label = int(counts.classes.argmin())
    if counts.classes[label] or not counts.ignored[value]:
        return ""
    return (
        f"; {counts.ignored[value] / total:.1%} of the pixels are {value}, which does not count: if that is "
        f"the class {data.classes[label]}, give --input.label_map '{{{value}: {label}}}'"
    )


def _tell_other_colours(data: MaskedImages) -> list[str]:
    """A line where a value has a colour of its own in some mask, as in colours that were made a palette."""
    palettes: dict[Path, list[int]] = {}
    for path in map(data.mask, sample(len(data), SAMPLE)):
        with suppress(UnreadableImageError), opened_image(path, str(path)) as mask:
            if mask.mode == "P":
                palettes[path] = mask.getpalette() or []
    if len({*map(tuple, palettes.values())}) < 2:
        return []
    # Palettes may differ in colours that no pixel has, so pixels are looked at too.
    first: dict[int, tuple[tuple[int, ...], Path]] = {}
    for path, palette in palettes.items():
        with suppress(UnreadableImageError), opened_image(path, str(path)) as mask:
            for value in np.unique(np.asarray(mask)).tolist():
                colour = tuple(palette[3 * value : 3 * value + 3])
                other, where = first.setdefault(value, (colour, path))
                if colour != other:
                    return [
                        f"the masks of {data.source} have palettes that differ: the value {value} is the "
                        f"colour {other} in {where}, but {colour} in {path}; values are taken for labels, "
                        "whatever their colours"
                    ]
    return []
