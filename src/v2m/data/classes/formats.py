"""The formats that the split of a folder may have, and finding out which one it is."""

from collections.abc import Callable

from v2m.data.classes.folders import find_folders, find_listed
from v2m.data.classes.huggingface import find_parquet
from v2m.data.classes.source import Opener, SplitSource
from v2m.data.classes.tars import find_tars
from v2m.system.errors import DataError

FORMATS: tuple[Callable[[SplitSource], Opener | None], ...] = (
    find_listed,
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
