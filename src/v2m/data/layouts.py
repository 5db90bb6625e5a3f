"""Where images and what is known of them lie in a folder, for tasks other than classes."""

from pathlib import Path

from v2m.data.image_files import subfolders
from v2m.system.errors import DataError

IMAGES, MASKS = "images", ("masks", "annotations", "labels")
"""Folders of images and of their masks, for segmentation."""
BESIDE_IMAGES = "_annotations.coco.json"
"""Annotations in COCO format in the folder of their images."""


def mask_folders(root: Path, split: str) -> list[tuple[Path, list[Path]]]:
    """Folders where the images of a split may be, each with those where their masks may be."""
    return [
        (root / IMAGES / split, [root / masks / split for masks in MASKS]),
        (root / split / IMAGES, [root / split / masks for masks in MASKS]),
    ]


def refuse_undivided_masks(root: Path) -> None:
    """Raise where a folder that has no splits holds images and what is known of them: these are no classes.

    Raises:
        DataError: it does; the message says what is expected.
    """
    folders = set(subfolders(root))
    if IMAGES in folders and folders > {IMAGES} and folders <= {IMAGES, *MASKS}:
        beside = min(folders - {IMAGES})
        raise DataError(
            f"data: {root} has {IMAGES} and {beside} of no split; expected class folders, or "
            f"{IMAGES}/train and {beside}/train with --task segmentation"
        )


def refuse_other_tasks(root: Path, split: str) -> None:
    """Raise where a split of a folder is for detection or segmentation: its folders are no classes.

    Raises:
        DataError: it is; the message says which task to give.
    """
    folder = root / split
    if set(subfolders(folder)) - {IMAGES, *MASKS} or any(root.glob(f"{split}*.tar*")):
        return  # there are classes
    for images, beside in mask_folders(root, split):
        for labels in beside:
            if not (images.is_dir() and labels.is_dir()):
                continue
            if any(labels.glob("*.txt")):
                raise DataError(
                    f"data: {images} has boxes in YOLO's format in {labels}, which is not read; export them "
                    "in COCO format and give --task detection"
                )
            raise DataError(f"data: {images} has masks in {labels}: give --task segmentation")
    for file in (*root.glob(f"annotations/instances_{split}*.json"), *folder.glob(BESIDE_IMAGES)):
        raise DataError(f"data: {root} has objects in COCO format in {file}: give --task detection")
