"""Looks at every image of a dataset with masks, and at every mask."""

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from v2m.data.check import Problem
from v2m.data.check_annotated import AnnotatedSplit, Look, fits, look_at
from v2m.data.classes.formats import VAL_SPLITS
from v2m.data.coco.paths import list_files
from v2m.data.errors import UnreadableImageError
from v2m.data.image_files import is_image
from v2m.data.masks.dataset import (
    IMAGES,
    MASK_SUFFIX,
    MASKS,
    is_ade,
    mask_class_names,
    read_mask,
    read_mask_size,
)
from v2m.system.errors import same_name

IGNORED = 255
"""Value of pixels without a label, unless training is told another one."""
MOST_VALUES = 5
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
        images: The folder of its images.
        masks: The folder of their masks.
        classes: Names of the classes; None where there is no list.
        first: Value of the first class, 1 for ADE20K.

    Attributes:
        name: As given.
        classes: As given.
        data: The images.
    """

    def __init__(
        self, name: str, images: Path, masks: Path, classes: Sequence[str] | None, first: int = 0
    ) -> None:
        self.name, self.classes, self._first = name, classes, first
        self._same_names: list[tuple[Path, Path]] = []
        own, theirs = self._by_stem(images, is_image), self._by_stem(masks, _is_mask)
        self.data = Paths([path for _, path in sorted(own.items())])
        self._masks = [theirs.get(stem) for stem in sorted(own)]
        self._left_over = [path for stem, path in sorted(theirs.items()) if stem not in own]

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
        return None if path is None else self._to_labels(read_mask(path, size))

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
        found = np.flatnonzero(counts).tolist()
        odd = found if self._has_many(found) else [value for value in found if not self._is_known(value)]
        if odd:
            listed = ", ".join(map(str, odd[:MOST_VALUES])) + (", ..." if len(odd) > MOST_VALUES else "")
            total = int(counts[odd].sum())
            look.problems.append(("value", f"{listed} in {total / values.size:.1%} of the pixels of {path}"))
            counts[odd] = 0
            counts[odd[0]] = total if self.classes else 0  # all together: images are many, as values may be
        return look._replace(values={value: int(counts[value]) for value in found if counts[value]})

    def finish(self, looks: list[Look]) -> AnnotatedSplit:
        """The split, with what was seen of all images."""
        totals: Counter[int] = Counter()
        for look in looks:
            totals.update(look.values)
        classes = self.classes
        if classes is None:
            labels = sorted(value for value in totals if not self._is_ignored(value))
            by_class = {f"value {value}": totals[value] for value in labels}
        else:
            by_class = {name: totals[value] for value, name in enumerate(classes, self._first)}
        labelled = sum(by_class.values())
        ignored = sum(count for value, count in totals.items() if self._is_ignored(value))
        numbers = {
            "labelled pixels": labelled,
            "ignored pixels": ignored,
            "pixels of no class": totals.total() - labelled - ignored,
        }
        problems = [Problem(self.name, str(path), "left-over mask", "no image") for path in self._left_over]
        problems += [Problem(self.name, str(p), "same name", f"as {other}") for p, other in self._same_names]
        return AnnotatedSplit(self.name, self.data, looks, by_class, numbers, problems)

    def _to_labels(self, values: Values) -> Values:
        return np.where(values == IGNORED, -1, values - self._first)

    def _is_ignored(self, value: int) -> bool:
        return value == IGNORED or value < self._first

    def _has_many(self, values: Sequence[int]) -> bool:
        """Whether these can be no labels: there is no list of classes, and they are very many."""
        return self.classes is None and len(values) > MOST_LABELS

    def _by_stem(self, folder: Path, is_wanted: Callable[[str], bool]) -> dict[str, Path]:
        """Files in a folder and below by their path in it without suffix (NFC)."""
        found: dict[str, Path] = {}
        for path in (folder / file for file in sorted(list_files(folder)) if is_wanted(Path(file).name)):
            first = found.setdefault(same_name(str(path.relative_to(folder).with_suffix(""))), path)
            if first is not path:
                self._same_names.append((path, first))
        return found

    def _is_known(self, value: int) -> bool:
        is_class = self.classes is None or 0 <= value - self._first < len(self.classes)
        return is_class or self._is_ignored(value)


def find_mask_checks(source: str) -> list[MasksCheck]:
    """The splits of a folder of images and masks; none if it is in another format."""
    root = Path(source)
    checks: list[MasksCheck] = []
    for name in ("train", "training", *VAL_SPLITS):
        for images, beside in (
            (root / IMAGES / name, [root / masks / name for masks in MASKS]),
            (root / name / IMAGES, [root / name / masks for masks in MASKS]),
        ):
            folder = next((folder for folder in beside if folder.is_dir()), None)
            if images.is_dir() and folder and not any(check.name == name for check in checks):
                names = mask_class_names(root)
                first = int(names is not None and is_ade(root, names))
                checks.append(MasksCheck(name, images, folder, names, first))
    return checks


def _is_mask(name: str) -> bool:
    return is_image(name) and name.lower().endswith(MASK_SUFFIX)
