"""The formats that the split of a folder may have, and finding out which one it is."""

import os
from collections.abc import Callable
from pathlib import Path

from v2m.data.classes.folders import find_folders, find_listed
from v2m.data.classes.huggingface import find_parquet
from v2m.data.classes.source import Opener, SplitSource
from v2m.data.classes.table import TABLES, find_metadata
from v2m.data.classes.tars import find_tars
from v2m.data.image_files import is_image
from v2m.system.errors import DataError

FORMATS: tuple[Callable[[SplitSource], Opener | None], ...] = (
    find_listed,
    find_metadata,
    find_tars,
    find_parquet,
    find_folders,  # the last one, since it takes whatever folder there is
)
"""Functions that tell how to open a split, or None where it is of another format; the first one counts."""

EXPECTED = "folder {split}/, nor {split}*.tar, nor {split}*.parquet"
"""What is missing where no format fits."""


def find_format(source: SplitSource) -> Opener | None:
    """How to open a split of a folder; None where it is of no known format."""
    return next((opener for find in FORMATS if (opener := find(source))), None)


def missing_split(source: str, split: str) -> DataError:
    """The error of a folder that does not have a split in any of the formats."""
    return DataError(f"data: {source} has no {EXPECTED.format(split=split)}")


def missing_images(root: Path) -> DataError:
    """The error of a folder in which there are no images of classes in any of the formats."""
    tables = [path.name for path in sorted(root.iterdir()) if path.suffix.lower() in TABLES]
    if any(map(is_image, os.listdir(root))):
        found = "images, but no class folders"
    else:
        found = f"no {EXPECTED.format(split='train')}, nor class folders with images"
    return DataError(
        f"data: {root} has {found}; expected <class>/<image>, train/<class>/<image>, or a table of images "
        + (f"and labels: is it --data {root / tables[0]}?" if tables else "and labels (.csv, .jsonl)")
    )
