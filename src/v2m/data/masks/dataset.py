"""Images with a mask each, whose values are labels."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor

from v2m.data.errors import UnreadableImageError
from v2m.data.images import fit_annotations, opened_image, read_image
from v2m.data.orientation import find_turn
from v2m.data.transforms import apply

LABEL_MODES = ("1", "L", "P", "I", "I;16", "I;16B")
"""Modes of PIL's whose pixels are one number each."""
VALUES = 2**16
"""Values that a pixel of a mask may have."""

MaskTransform = Callable[[Image.Image, Tensor], tuple[Tensor, Tensor]]


class MaskedImages:
    """Images of one split, in colour, and their labels.

    An image whose file or mask cannot be used raises ``UnreadableImageError``, one that its transform fails
    on ``TransformError``.

    Args:
        source: What the split was read from, for messages.
        pairs: Files of images and their masks.
        classes: Names of the classes.
        ignore_index: Label of pixels that have none.
        label_map: Labels of values in the masks; other values are labels themselves.

    Attributes:
        source: As given.
        classes: As given.
        warnings: A line for each kind of thing that is odd about them.
        notes: A line for each thing to know of them that is not odd.
        ignore_index: As given.
        transform: What ``[]`` applies to an image and its labels; None for nothing.
    """

    def __init__(
        self,
        source: str,
        pairs: Sequence[tuple[Path, Path]],
        classes: Sequence[str],
        ignore_index: int = 255,
        label_map: Mapping[int, int] | None = None,
    ) -> None:
        self.source, self.classes = source, list(classes)
        self.warnings: list[str] = []
        self.notes: list[str] = []
        self.transform: MaskTransform | None = None
        self.ignore_index = ignore_index
        self._pairs = list(pairs)
        self._labels = label_table(label_map)

    def __len__(self) -> int:
        return len(self._pairs)

    def __getitem__(self, index: int) -> tuple[Any, Tensor]:
        image, labels = self.read(index)
        if self.transform:
            return apply(self.transform, self.name(index), image, labels)
        return image, labels

    def name(self, index: int) -> str:
        """The path of an image."""
        return str(self._pairs[index][0])

    def mask(self, index: int) -> Path:
        """The mask file of an image."""
        return self._pairs[index][1]

    def read(self, index: int) -> tuple[Image.Image, Tensor]:
        """The image in RGB, and its labels ``[H, W]`` (int64): places in the classes, or the ignore index.

        The image is upright, or as it is stored where only that has the mask's size.

        Raises:
            UnreadableImageError: one of the files cannot be read, or the mask does not fit.
        """
        path, mask = self._pairs[index]
        # The upright size is enough to refuse another mask unseen; the image may still turn out to be stored.
        image = read_image(path)
        _, labels = self.read_labels(index, image.size)
        height, width = labels.shape
        image = fit_annotations(image, path, (width, height)).convert("RGB")
        if (width, height) != image.size:
            raise UnreadableImageError(str(mask), _describe_sizes((width, height), image.size))
        return image, torch.from_numpy(labels)

    def read_labels(self, index: int, size: tuple[int, int] | None = None) -> tuple[Any, Any]:
        """Values ``[H, W]`` in the mask of an image, and the labels ``[H, W]`` that they stand for.

        Args:
            index: Number of the image.
            size: Its width and height, if they are known.

        Raises:
            UnreadableImageError: it cannot be read, or has a label that is no class.
        """
        mask = self.mask(index)
        values = read_mask(mask, size)
        labels = self._labels[values]
        unknown = ((labels < 0) | (labels >= len(self.classes))) & (labels != self.ignore_index)
        if unknown.any():
            raise UnreadableImageError(
                str(mask),
                f"label {labels[unknown][0]} is neither one of {len(self.classes)} classes, counted from 0, "
                f"nor the ignore index {self.ignore_index}",
            )
        return values, labels


def label_table(label_map: Mapping[int, int] | None) -> npt.NDArray[np.int64]:
    """The label ``[65536]`` of every value that a mask may have: the value itself where none is given."""
    labels = np.arange(VALUES, dtype=np.int64)
    for value, label in (label_map or {}).items():
        labels[value] = label
    return labels


def read_mask(path: Path, size: tuple[int, int] | None = None) -> Any:
    """Values ``[H, W]`` in a mask: gray of 1, 8 or 16 bits, or places in a palette.

    Args:
        path: The file.
        size: Width and height of its image, or the other way round; a mask of others is not decoded.

    Raises:
        UnreadableImageError: the file cannot be read, has colours, other values, or another size.
    """
    with opened_image(path, str(path)) as mask:
        if size and sorted(mask.size) != sorted(size):
            raise ValueError(_describe_sizes(mask.size, size))
        mask.load()  # only now: a mask of another size may be huge
        if mask.mode not in LABEL_MODES:
            raise ValueError(f"mask has {mask.mode} pixels, expected one number each: gray, or a palette")
        turn = find_turn(mask)
        values = np.asarray(mask if turn is None else mask.transpose(turn)).astype(np.int64)
        for extreme in (values.min(), values.max()):
            if not 0 <= extreme < VALUES:
                raise ValueError(f"mask has the value {extreme}, expected 0 to {VALUES - 1}")
        return values


def read_mask_size(path: Path) -> tuple[int, int]:
    """Width and height of a mask as it is stored, which is not decoded.

    Raises:
        UnreadableImageError: the file cannot be read.
    """
    with opened_image(path, str(path)) as mask:
        return mask.size


def _describe_sizes(mask: tuple[int, int], image: tuple[int, int]) -> str:
    return "mask is {}x{} pixels, the image {}x{}".format(*mask, *image)
