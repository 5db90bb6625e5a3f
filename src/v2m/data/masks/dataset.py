"""Images with a label for every pixel: a folder of images beside one of masks."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, get_args

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from v2m.data.classes.dataset import read_class_names
from v2m.data.classes.formats import VAL_SPLITS
from v2m.data.classes.named import Split
from v2m.data.errors import UnreadableImageError
from v2m.data.image_files import is_image, tell_other_images, walk_files
from v2m.data.images import fit_annotations, opened_image, read_image, tell_hidden_turns
from v2m.data.layouts import IMAGES, MASKS
from v2m.data.orientation import find_turn
from v2m.data.transforms import apply
from v2m.system.errors import DataError, few, same_name
from v2m.system.files import read_lines

MASK_SUFFIX = ".png"
LABEL_MODES = ("1", "L", "P", "I", "I;16", "I;16B")
"""Modes of PIL's whose pixels are one number each."""
VALUES = 2**16
"""Values that a pixel of a mask may have."""
ADE_OBJECTS, ADE_CLASSES = "objectInfo150.txt", 150

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
        self.transform: MaskTransform | None = None
        self.ignore_index = ignore_index
        self._pairs = list(pairs)
        self._labels = np.arange(VALUES, dtype=np.int64)
        for value, label in (label_map or {}).items():
            self._labels[value] = label

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
        image = read_image(path)
        _, labels = self.read_mask(index, image.size)
        height, width = labels.shape
        image = fit_annotations(image, path, (width, height)).convert("RGB")
        if (width, height) != image.size:
            raise UnreadableImageError(str(mask), _describe_sizes((width, height), image.size))
        return image, torch.from_numpy(labels)

    def read_mask(self, index: int, size: tuple[int, int] | None = None) -> tuple[Any, Any]:
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
        mask.load()
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


def open_masks(
    source: str,
    split: Split,
    classes: Sequence[str] | None = None,
    ignore_index: int = 255,
    label_map: Mapping[int, int] | None = None,
) -> MaskedImages:
    """Open one split of a folder of images with masks.

    The folder has ``images/<split>`` with ``masks/<split>``, or ``<split>/images`` with ``<split>/masks``;
    ``annotations`` and ``labels`` are other names for ``masks``. Masks are PNG files, matched by their path
    below these folders without its suffix. ``classes.txt`` or ``labels.txt`` has a class name per line.

    ADE20K is taken as it is unpacked, and is known by its ``objectInfo150.txt``, or by a folder ``training``
    of images with 150 classes. Its values count from 1, and 0 is ignored, unless there is a ``label_map``.

    Args:
        source: The folder.
        split: ``"train"`` (also training) or ``"val"`` (also validation, valid or test).
        classes: Names that the classes must have, and have where the folder has no list; None for any.
        ignore_index: Label of pixels that have none.
        label_map: Labels of values in the masks; other values are labels themselves.

    Raises:
        DataError: there is no such folder, split or list, or images and masks are not in pairs.
    """
    if split not in get_args(Split):
        raise DataError(f"data: split is {split!r}, expected 'train' or 'val'")
    root = Path(source)
    if not root.is_dir():
        raise DataError(
            f"data: {source!r} is no folder, expected one with {IMAGES}/train and {MASKS[0]}/train"
        )
    folders = _find_folders(root, split)
    names = mask_class_names(root) or (list(classes) if classes is not None else None)
    if names is None:
        raise DataError(
            f"data: {root} has no class names, write them into {root / 'classes.txt'}, one a line: "
            "the first is that of label 0"
        )
    if classes is not None and names != [same_name(name) for name in classes]:
        raise DataError(f"data: the classes of {root} are {few(names)}, the model's {few(classes)}")
    if 0 <= ignore_index < len(names):
        raise DataError(
            f"data: ignore_index is {ignore_index}, which is the class {names[ignore_index]!r}; give one "
            f"that is none of {len(names)} classes, and map values to it by label_map"
        )
    if label_map is None and is_ade(root, names):
        label_map = {0: ignore_index} | {value: value - 1 for value in range(1, len(names) + 1)}
    files = list(walk_files(folders.images))
    others = tell_other_images(folders.images, files)
    data = MaskedImages(
        str(folders.images), _find_pairs(folders, files, others), names, ignore_index, label_map
    )
    data.warnings += others + tell_hidden_turns(data.source, len(data), data.name)
    return data


class _Folders(NamedTuple):
    """Where the images and masks of a split are."""

    images: Path
    masks: Path


def _find_folders(root: Path, split: Split) -> _Folders:
    for name in ("train", "training") if split == "train" else VAL_SPLITS:
        for images, beside in (
            (root / IMAGES / name, [root / masks / name for masks in MASKS]),
            (root / name / IMAGES, [root / name / masks for masks in MASKS]),
        ):
            if not images.is_dir():
                continue
            found = next((folder for folder in beside if folder.is_dir()), None)
            if found is None:
                expected = ", ".join(str(folder.relative_to(root)) for folder in beside)
                raise DataError(f"data: {images} has no masks, expected them in one of {expected}")
            return _Folders(images, found)
    raise DataError(
        f"data: {root} has no images to {'train' if split == 'train' else 'validate'} on, expected "
        f"{IMAGES}/{split} with {MASKS[0]}/{split}, or {split}/{IMAGES} with {split}/{MASKS[0]}"
    )


def _find_pairs(folders: _Folders, files: Sequence[str], others: Sequence[str]) -> list[tuple[Path, Path]]:
    """Images among the files of their folder with their masks, in order of name."""
    images = _by_stem(folders.images, filter(is_image, files))
    masks = _by_stem(folders.masks, (f for f in walk_files(folders.masks) if f.lower().endswith(MASK_SUFFIX)))
    if not images:
        raise DataError("; ".join([f"data: {folders.images} holds no images", *others]))
    for what, lone in (
        (f"images without a mask ({MASK_SUFFIX}) in {folders.masks}", images.keys() - masks.keys()),
        (f"masks without an image in {folders.images}", masks.keys() - images.keys()),
    ):
        if lone:
            raise DataError(f"data: {what}: {few(sorted(lone))}")
    return [(images[stem], masks[stem]) for stem in sorted(images)]


def _by_stem(folder: Path, files: Iterable[str]) -> dict[str, Path]:
    """Files in a folder and below by their path in it without suffix (NFC)."""
    found: dict[str, Path] = {}
    for path in map(Path, files):
        stem = same_name(str(path.relative_to(folder).with_suffix("")))
        if stem in found:
            raise DataError(f"data: {found[stem]} and {path.name} have one name, expected an image each")
        found[stem] = path
    return found


def mask_class_names(root: Path) -> list[str] | None:
    """Names in a list of classes, else in ADE20K's list, else None."""
    if names := read_class_names(root):
        return names
    file = root / ADE_OBJECTS
    if not file.is_file():
        return None
    names = [row.split("\t")[-1].split(",")[0].strip() for row in read_lines(file)[1:]]
    if not all(names) or not names:
        which = f"line {names.index('') + 2} has no class" if names else "it has no classes"
        raise DataError(f"data: {file} is not as ADE20K has it: {which}")
    return names


def is_ade(root: Path, names: Sequence[str]) -> bool:
    """Whether a folder is ADE20K as it unpacks."""
    return (root / ADE_OBJECTS).is_file() or (
        len(names) == ADE_CLASSES and (root / IMAGES / "training").is_dir()
    )
