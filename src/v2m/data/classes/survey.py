"""What a folder or table of images holds, from a quick look: images, classes and sizes."""

import math
import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from v2m.data.classes.folders import FolderImages
from v2m.data.classes.open import find_splits, open_whole
from v2m.data.classes.table import TableImages, open_metadata
from v2m.data.errors import UnreadableImageError
from v2m.data.image_files import is_image, subfolders, walk_files
from v2m.data.images import LOOKED_AT, opened_image
from v2m.data.sample import sample
from v2m.data.splits import VAL_SPLITS
from v2m.system.errors import DataError

MOST_COUNTED = 100_000
"""Images that are counted: beyond that, it makes no difference how many there are."""
MOST_LISTED = 2**26
"""Bytes of the table that is read for a quick look."""


@dataclass(frozen=True)
class Survey:
    """What is in a folder or table of images.

    Attributes:
        images: Images to train on and those to be divided from them; at most ``MOST_COUNTED`` are counted.
        classes: Classes that they are of.
        width: Width in pixels of the image of median area, of a sample.
        height: Height of the same image.
        has_val: Whether there are validation images besides.
    """

    images: int
    classes: int
    width: int
    height: int
    has_val: bool


def survey(source: str, *, allow_outside: bool = False) -> Survey | None:
    """A quick look at images in class folders or a table; None for other formats and what cannot be opened.

    Only the headers of a sample of images are read.

    Args:
        source: The folder or table.
        allow_outside: As for ``open_dataset``.
    """
    if os.path.isfile(source) and os.path.getsize(source) > MOST_LISTED:
        return None
    with suppress(DataError, OSError):
        splits = find_splits(source, Path(), allow_outside=allow_outside)
        name = "train" if "train" in splits else "val"
        opener = splits.get(name)
        has_val = name == "train" and any(split in splits for split in VAL_SPLITS)
        if getattr(opener, "func", None) is open_whole:
            (opener,) = opener.args  # type: ignore[union-attr]
        if getattr(opener, "func", None) is FolderImages:
            root, *names = opener.args  # type: ignore[union-attr]
            return _survey_folders(root, names[0] if names else subfolders(root), has_val)
        if opener and getattr(opener, "func", None) in (TableImages, open_metadata):
            images = opener()
            paths = [images.name(i) for i in range(len(images))]
            return _survey(len(paths), len(images.classes), paths, has_val)
    return None


def _survey_folders(root: Path, names: Sequence[str], has_val: bool) -> Survey | None:
    """Class folders, of which some images of each are kept to be looked at."""
    count, paths = 0, []
    each = -(-LOOKED_AT // max(1, len(names)))
    for name in names:
        images = filter(is_image, walk_files(root / name))
        first = list(islice(images, each))
        paths += first
        count += len(first) + sum(1 for _ in islice(images, MOST_COUNTED - count))
        if count >= MOST_COUNTED:
            break
    return _survey(count, len(names), paths, has_val)


def _survey(count: int, classes: int, paths: Sequence[str], has_val: bool) -> Survey | None:
    sizes = []
    for index in sample(len(paths), LOOKED_AT):
        with suppress(UnreadableImageError), opened_image(paths[index], paths[index]) as image:
            sizes.append(image.size)
    if not sizes:
        return None
    # Sides of one image: a median of each side alone is the size of no photo where some stand upright.
    width, height = sorted(sizes, key=math.prod)[(len(sizes) - 1) // 2]
    return Survey(min(count, MOST_COUNTED), classes, width, height, has_val)
