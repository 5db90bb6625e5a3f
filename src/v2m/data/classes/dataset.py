"""What every dataset of classes is: images by index, each with a name and the index of its class."""

from collections.abc import Sequence
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
from PIL import Image
from torchvision.datasets import VisionDataset

from v2m.data.images import decode_image
from v2m.data.transforms import apply
from v2m.system.errors import DataError, few, same_name


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
        notes: A line for each thing to know of them that is not odd.
        is_whole: Whether these are all images of a dataset that has no splits.
        transform: What ``[]`` applies to an image; None for nothing.
    """

    def __init__(
        self, source: str, classes: Sequence[str], targets: Sequence[int], declared: bool = True
    ) -> None:
        super().__init__(root=source)
        self.source, self.declared = source, declared
        self.warnings: list[str] = []
        self.notes: list[str] = []
        self.is_whole = False
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
        target_of = {same_name(name): target for target, name in enumerate(classes)}
        unknown = [name for name in self.classes if name not in target_of]
        if unknown:
            raise DataError(
                f"data: {self.source} has classes that are not known: {few(unknown)} (known: {few(classes)})"
            )
        new_targets = [target_of[name] for name in self.classes]
        self.classes, self.targets = list(classes), [new_targets[target] for target in self.targets]


class ArrayImages(LabelledImages):
    """Images in memory.

    Args:
        source: What the images are, for their names.
        images: Gray images ``[N, H, W]``, or colour ``[N, H, W, 3]``.
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
