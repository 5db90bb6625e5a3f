"""Where the images and the masks of a split are in a folder."""

from pathlib import Path
from typing import NamedTuple

from v2m.data.layouts import IMAGES, MASKS, mask_folders
from v2m.data.splits import VAL_SPLITS, Split
from v2m.system.errors import DataError

TRAIN_NAMES = ("train", "training")
"""Names of the split to train on; the second one is ADE20K's."""


class MaskFolders(NamedTuple):
    """Where the images and the masks of a split are."""

    images: Path
    masks: Path


def find_folders(root: Path, split: Split) -> MaskFolders:
    """The folders of a split, by any of its names.

    Raises:
        DataError: there are no images of it, or no masks.
    """
    names = TRAIN_NAMES if split == "train" else VAL_SPLITS
    for images, beside in (pair for name in names for pair in mask_folders(root, name)):
        if not images.is_dir():
            continue
        masks = next((folder for folder in beside if folder.is_dir()), None)
        if masks is None:
            expected = ", ".join(str(folder.relative_to(root)) for folder in beside)
            raise DataError(f"data: {images} has no masks, expected them in one of {expected}")
        return MaskFolders(images, masks)
    raise DataError(
        f"data: {root} has no images to {'train' if split == 'train' else 'validate'} on, expected "
        f"{IMAGES}/{split} with {MASKS[0]}/{split}, or {split}/{IMAGES} with {split}/{MASKS[0]}"
    )


def find_mask_splits(root: Path) -> dict[str, MaskFolders]:
    """The folders of every split that has both images and masks."""
    found: dict[str, MaskFolders] = {}
    for name in (*TRAIN_NAMES, *VAL_SPLITS):
        for images, beside in mask_folders(root, name):
            masks = next((folder for folder in beside if folder.is_dir()), None)
            if images.is_dir() and masks:
                found.setdefault(name, MaskFolders(images, masks))
    return found
