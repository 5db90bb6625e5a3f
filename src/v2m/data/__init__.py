"""Labelled images, by name or by folder, and their transforms."""

from v2m.data.dataset import LabelledImages
from v2m.data.datasets import find_splits, open_dataset
from v2m.data.errors import DataError, DecompressionBombError, UnreadableImageError, first_line
from v2m.data.files import replace_file
from v2m.data.image_files import find_images
from v2m.data.images import read_image
from v2m.data.named import DATASETS, DatasetInfo, Split
from v2m.data.transforms import AugmentConfig, ImageSpec, eval_transform, train_transform

__all__ = [
    "DATASETS",
    "AugmentConfig",
    "DataError",
    "DatasetInfo",
    "DecompressionBombError",
    "ImageSpec",
    "LabelledImages",
    "Split",
    "UnreadableImageError",
    "eval_transform",
    "find_images",
    "find_splits",
    "first_line",
    "open_dataset",
    "read_image",
    "replace_file",
    "train_transform",
]
