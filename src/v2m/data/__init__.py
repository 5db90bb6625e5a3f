"""Labelled images, by name or by folder, and their transforms."""

from v2m.data.datasets import (
    DATASETS,
    DatasetInfo,
    Split,
    find_images,
    first_line,
    open_dataset,
    read_image,
)
from v2m.data.errors import DataError, UnreadableImageError
from v2m.data.files import replace_file
from v2m.data.transforms import AugmentConfig, ImageSpec, eval_transform, train_transform

__all__ = [
    "DATASETS",
    "AugmentConfig",
    "DataError",
    "DatasetInfo",
    "ImageSpec",
    "Split",
    "UnreadableImageError",
    "eval_transform",
    "find_images",
    "first_line",
    "open_dataset",
    "read_image",
    "replace_file",
    "train_transform",
]
