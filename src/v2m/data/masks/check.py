"""Looks at every image of a dataset with masks, and at every mask."""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from v2m.data.check.annotated import AnnotatedSplit, Look, fits, look_at
from v2m.data.check.problems import Problem
from v2m.data.errors import UnreadableImageError
from v2m.data.image_files import is_image, walk_files
from v2m.data.masks import camvid
from v2m.data.masks.dataset import label_table, read_mask, read_mask_size
from v2m.data.masks.folders import MaskFolders, find_mask_splits
from v2m.data.masks.open import (
    find_label_map,
    is_mask,
    mask_class_names,
    match_by_stem,
)
from v2m.system.caches import user_cache

IGNORED = 255
"""Label of pixels that have none, unless another one is given."""
MOST_VALUES = 5
"""Values of a mask that a problem lists."""
MOST_LABELS = 2**10
"""Values in a mask that are taken for labels where there is no list of classes."""

Values = npt.NDArray[np.int64]


class Paths(NamedTuple):
    """Image files by number."""

    paths: Sequence[Path]

    def name(self, index: int) -> str:
        """The path of one."""
        return str(self.paths[index])


class MasksCheck:
    """The images of one split, to be looked at; those without a mask are there too.

    Args:
        name: The name of the split.
        folders: Where its images and their masks are.
        classes: Names of the classes; None where there is no list.
        ignore_index: Label of pixels that have none.
        label_map: Labels of values in the masks; other values are labels themselves.

    Attributes:
        name: As given.
        classes: As given.
        data: The images.
    """

    def __init__(
        self,
        name: str,
        folders: MaskFolders,
        classes: Sequence[str] | None,
        ignore_index: int = IGNORED,
        label_map: Mapping[int, int] | None = None,
    ) -> None:
        self.name, self.classes = name, classes
        self._ignore_index, self._labels = ignore_index, label_table(label_map)
        images, same_images = match_by_stem(
            folders.images, filter(is_image, sorted(walk_files(folders.images)))
        )
        masks, same_masks = match_by_stem(folders.masks, filter(is_mask, sorted(walk_files(folders.masks))))
        self.data = Paths([images[stem] for stem in sorted(images)])
        self._masks = [masks.get(stem) for stem in sorted(images)]
        self._left_over = [masks[stem] for stem in sorted(masks) if stem not in images]
        self._same_names = same_images + same_masks

    def __len__(self) -> int:
        return len(self.data.paths)

    def labels(self, index: int, size: tuple[int, int]) -> Values | None:
        """Labels ``[H, W]`` of an image, below 0 for none; None where there is no mask.

        Args:
            index: Number of the image.
            size: Its width and height.

        Raises:
            UnreadableImageError: the mask cannot be read, or is of another size.
        """
        path = self._masks[index]
        if path is None:
            return None
        labels = self._labels[read_mask(path, size)]
        return np.where(labels == self._ignore_index, -1, labels)

    def look(self, index: int) -> Look:
        """Look at an image and its mask."""
        look, path = look_at(self.data.name(index)), self._masks[index]
        if path is None:
            look.problems.append(("missing mask", "no mask of its name"))
            return look
        real = look.facts.size if look.facts.mode else None
        try:
            width, height = read_mask_size(path)
            if real and sorted((width, height)) != sorted(real):  # not decoded: it may be huge
                look.problems.append(("size", "is {}x{} pixels, its mask {}x{}".format(*real, width, height)))
                return look
            values = read_mask(path)
        except UnreadableImageError as error:
            look.problems.append(("unreadable", f"mask {path}: {error.reason}"))
            return look
        height, width = values.shape
        if real and not fits(look, (width, height)):
            look.problems.append(("size", "is {}x{} pixels, its mask {}x{}".format(*real, width, height)))
        counts = np.bincount(values.ravel())
        found = np.flatnonzero(counts)
        if unknown := self._unknown(found):
            listed = ", ".join(map(str, unknown[:MOST_VALUES])) + (
                ", ..." if len(unknown) > MOST_VALUES else ""
            )
            total = int(counts[unknown].sum())
            look.problems.append(("value", f"{listed} in {total / values.size:.1%} of the pixels of {path}"))
            # All of them count for the first one: there are many images, and may be many values in each.
            counts[unknown] = 0
            counts[unknown[0]] = total if self.classes else 0
        return look._replace(values={value: int(counts[value]) for value in found.tolist() if counts[value]})

    def finish(self, looks: list[Look]) -> AnnotatedSplit:
        """The split, with what was seen of all images."""
        # Values of a mask are few, so labels are looked up for the totals and not for every pixel.
        by_value: Counter[int] = Counter()
        for look in looks:
            by_value.update(look.values)
        by_label: Counter[int] = Counter()
        for value, count in by_value.items():
            by_label[int(self._labels[value])] += count
        ignored = by_label[self._ignore_index]
        if self.classes is None:
            known = sorted(label for label in by_label if label != self._ignore_index)
            by_class = {f"value {label}": by_label[label] for label in known}
        else:
            by_class = {name: by_label[label] for label, name in enumerate(self.classes)}
        labelled = sum(by_class.values())
        numbers = {
            "labelled pixels": labelled,
            "ignored pixels": ignored,
            "pixels of no class": by_value.total() - labelled - ignored,
        }
        problems = [Problem(self.name, str(path), "left-over mask", "no image") for path in self._left_over]
        problems += [Problem(self.name, str(p), "same name", f"as {other}") for p, other in self._same_names]
        return AnnotatedSplit(self.name, self.data, looks, by_class, numbers, problems)

    def _unknown(self, values: Values) -> list[int]:
        """Those of the values in a mask that are no class: all, where too many are to be labels at all."""
        if self.classes is None:
            return values.tolist() if len(values) > MOST_LABELS else []
        labels = self._labels[values]
        is_known = ((labels >= 0) & (labels < len(self.classes))) | (labels == self._ignore_index)
        unknown: list[int] = values[~is_known].tolist()
        return unknown


def find_mask_checks(
    source: str,
    ignore_index: int = IGNORED,
    label_map: Mapping[int, int] | None = None,
    *,
    data_dir: Path | None = None,
) -> list[MasksCheck]:
    """The splits of a folder of images and masks, or of ``camvid``; none if it is in another format.

    Args:
        source: The folder, or ``camvid``.
        ignore_index: Label of pixels that have none.
        label_map: Labels of values in the masks; None for ADE20K's and CamVid's own in these, else for the
            values themselves.
        data_dir: Where named datasets are looked for, and downloaded to; None for the user's cache.
    """
    if source == camvid.NAME:
        splits = camvid.find_camvid(data_dir or user_cache())
        names: list[str] | None = list(camvid.CLASSES)
    else:
        splits = find_mask_splits(Path(source))
        if not splits:
            return []
        names = mask_class_names(Path(source))
    if label_map is None:
        label_map = find_label_map(source, names, ignore_index)
    return [MasksCheck(name, folders, names, ignore_index, label_map) for name, folders in splits.items()]
