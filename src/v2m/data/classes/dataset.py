"""What every dataset is: images by index, each with a name and the index of its class."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
from PIL import Image
from torchvision.datasets import VisionDataset

from v2m.data.images import decode_image
from v2m.data.transforms import apply
from v2m.system.errors import DataError, few, same_name
from v2m.system.files import read_names


class LabelledImages(VisionDataset):
    """Images of one split of a dataset, in any order.

    An image that cannot be read raises ``UnreadableImageError``, one that its transform fails on
    ``TransformError``; none is skipped or replaced.

    Attributes:
        source: What the split was read from, for messages.
        classes: Names of the classes, in Unicode's form NFC.
        targets: Index in ``classes`` of each image.
        declared: Whether the classes were listed apart from the images, so that some may have none.
        warnings: A line for each kind of thing that is odd about them.
        transform: What ``[]`` applies to an image; None for nothing.
    """

    def __init__(
        self, source: str, classes: Sequence[str], targets: Sequence[int], declared: bool = True
    ) -> None:
        super().__init__(root=source)
        self.source, self.declared = source, declared
        self.warnings: list[str] = []
        self.classes, self.targets = [same_name(name) for name in classes], list(targets)

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, index: int) -> tuple[Any, int]:
        image = self.read(index)
        if self.transform:
            image = apply(self.transform, self.name(index), image)
        return image, self.targets[index]

    def name(self, index: int) -> str:
        """Where an image is."""
        raise NotImplementedError

    def read(self, index: int) -> Image.Image:
        """The image, upright, 8 bits a channel.

        Raises:
            UnreadableImageError: it cannot be read.
        """
        raise NotImplementedError

    def empty_classes(self) -> list[str]:
        """Classes without an image."""
        used = set(self.targets)
        return [name for index, name in enumerate(self.classes) if index not in used]

    def relabel(self, classes: Sequence[str]) -> None:
        """Count labels in another list of classes, by name.

        Raises:
            DataError: it lacks one of the classes.
        """
        places = {same_name(name): place for place, name in enumerate(classes)}
        unknown = [name for name in self.classes if name not in places]
        if unknown:
            raise DataError(
                f"data: {self.source} has classes that are not known: {few(unknown)} (known: {few(classes)})"
            )
        moved = [places[name] for name in self.classes]
        self.classes, self.targets = list(classes), [moved[target] for target in self.targets]


class ArrayImages(LabelledImages):
    """Images in memory.

    Args:
        source: What the images are, for their names.
        images: Gray images ``[N, H, W]``.
        targets: Their class indices ``[N]``.
        classes: Names of the classes.
    """

    def __init__(
        self,
        source: str,
        images: npt.NDArray[np.uint8],
        targets: npt.NDArray[np.int64],
        classes: Sequence[str],
    ) -> None:
        super().__init__(source, classes, targets.tolist())
        self.images = images

    def name(self, index: int) -> str:
        """The dataset and the index."""
        return f"{self.source} image {index}"

    def read(self, index: int) -> Image.Image:
        """The image."""
        return Image.fromarray(self.images[index])


class EncodedImages(LabelledImages):
    """Images in files of an image format, or in pieces of larger files."""

    def file(self, index: int) -> str | BinaryIO:
        """The path of an image file, or its bytes as a file.

        Raises:
            UnreadableImageError: it cannot be had.
        """
        raise NotImplementedError

    def read(self, index: int) -> Image.Image:
        """The decoded image."""
        return decode_image(self.file(index), self.name(index))


MOST_UNLISTED = 2**16
"""Classes that indices may count without a list of their names, even where there are fewer images."""


def read_class_names(root: Path) -> list[str] | None:
    """The lines of ``classes.txt`` or ``labels.txt`` in a folder; None where there is neither.

    Raises:
        DataError: a line is no name or there twice, or the file is not in UTF-8.
    """
    path = next((root / name for name in ("classes.txt", "labels.txt") if (root / name).exists()), None)
    if path is None:
        return None
    names = read_names(path)
    first: dict[str, int] = {}
    for line, name in enumerate(names, 1):
        if first.setdefault(name, line) < line:
            raise DataError(f"{path}, line {line} has {name} twice, as line {first[name]} has it")
    return names


def place_labels(
    labels: Sequence[int | str], names: Sequence[str] | None, where: Any
) -> tuple[list[str], list[int]]:
    """Classes and targets from labels that are indices or names.

    Args:
        labels: Of every image; indices are of ``names``.
        names: The list of classes; None to take the indices, or the sorted names that there are.
        where: Function of an image's index that says where it is.

    Raises:
        DataError: a label is not one of the classes.
    """
    labels = [same_name(label) if isinstance(label, str) else label for label in labels]
    if names is None:
        found = set(labels)
        numbers = {label for label in found if isinstance(label, int)}
        if numbers and (highest := max(numbers)) >= (most := max(MOST_UNLISTED, len(labels))):
            raise DataError(
                f"data: {where(labels.index(highest))} has label {highest}, expected one below {most:,}; "
                "where there are more classes than that and images, list them in classes.txt"
            )
        names = [str(i) for i in range(max(numbers) + 1)] if found == numbers else sorted(map(str, found))
        if found != numbers:
            labels = [str(label) for label in labels]
    places = {same_name(name): place for place, name in enumerate(names)}
    targets = []
    for index, label in enumerate(labels):
        target = label if isinstance(label, int) else places.get(label, -1)
        if not 0 <= target < len(names):
            raise DataError(f"data: {where(index)} has label {label!r}, expected one of {len(names)} classes")
        targets.append(target)
    return list(names), targets
