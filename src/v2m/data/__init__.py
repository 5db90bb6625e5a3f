"""Images and what is known of them: found, read, checked and prepared.

Rooms by kind: ``classes`` has images with a class each, ``coco`` images with objects, ``masks`` images with a
label for every pixel. In each of them ``open`` finds the splits of a folder, and ``check`` looks at every
image; what the checks share is in the room ``check``. ``scenes`` makes a set of scenes. All else is for every
kind.
"""

from typing import TYPE_CHECKING

from v2m.system.imports import lazy_names

if TYPE_CHECKING:
    from v2m.data.augment import AugmentConfig
    from v2m.data.classes.dataset import LabelledImages
    from v2m.data.classes.open import find_splits, open_dataset
    from v2m.data.image_files import find_images
    from v2m.data.images import read_image
    from v2m.data.named import DATASETS, DatasetInfo
    from v2m.data.splits import Split
    from v2m.data.transforms import ImageSpec, eval_transform, train_transform
else:
    __getattr__, __dir__ = lazy_names(
        __name__,
        {
            "v2m.data.augment": ["AugmentConfig"],
            "v2m.data.classes.dataset": ["LabelledImages"],
            "v2m.data.named": ["DATASETS", "DatasetInfo"],
            "v2m.data.classes.open": ["find_splits", "open_dataset"],
            "v2m.data.image_files": ["find_images"],
            "v2m.data.images": ["read_image"],
            "v2m.data.splits": ["Split"],
            "v2m.data.transforms": ["ImageSpec", "eval_transform", "train_transform"],
        },
    )

__all__ = [
    "DATASETS",
    "AugmentConfig",
    "DatasetInfo",
    "ImageSpec",
    "LabelledImages",
    "Split",
    "eval_transform",
    "find_images",
    "find_splits",
    "open_dataset",
    "read_image",
    "train_transform",
]
