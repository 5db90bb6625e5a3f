"""Folders of images for other tasks, which would be taken for classes."""

from collections.abc import Iterator
from pathlib import Path

from v2m.data.classes.folders import subfolders
from v2m.system.errors import DataError

IMAGES, MASKS = "images", ("masks", "annotations", "labels")
"""Folders of images and of their masks, for segmentation."""


def refuse_other_tasks(root: Path, split: str) -> None:
    """Raise where a split of a folder is for detection or segmentation.

    Raises:
        DataError: it is; the message says which task to give.
    """
    folder = root / split
    if set(subfolders(folder)) - {IMAGES, *MASKS} or any(root.glob(f"{split}*.tar*")):
        return
    for images, labels in _pairs(root, split):
        if any(labels.glob("*.txt")):
            raise DataError(
                f"data: {images} has boxes in YOLO's format in {labels}, which is not read; export them in "
                "COCO format and give --task detection"
            )
        raise DataError(f"data: {images} has masks in {labels}: give --task segmentation")
    for file in (*root.glob(f"annotations/instances_{split}*.json"), *folder.glob("_annotations.coco.json")):
        raise DataError(f"data: {root} has objects in COCO format in {file}: give --task detection")


def _pairs(root: Path, split: str) -> Iterator[tuple[Path, Path]]:
    """Folders of images beside one of masks or boxes."""
    for name in MASKS:
        for images, labels in (
            (f"{split}/{IMAGES}", f"{split}/{name}"),
            (f"{IMAGES}/{split}", f"{name}/{split}"),
        ):
            if (root / images).is_dir() and (root / labels).is_dir():
                yield root / images, root / labels
