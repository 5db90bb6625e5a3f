"""Splits of a dataset, and the names that folders and files have for them."""

from typing import Literal, TypeAlias

Split: TypeAlias = Literal["train", "val"]
"""What a split is for: to train on, or to validate on."""

VAL_SPLITS = ("val", "validation", "valid", "test")
"""Names of a split to validate on; of those that a dataset has, the first one counts."""
SPLITS = ("train", *VAL_SPLITS)
VAL_SHARE = 0.2
"""Share of the images that are validated on where there is no split."""
ALL = "all"
"""Images that are of no split yet."""
OTHER_NAMES = {"training": "train", "testing": "test"}
"""What class folders and tables call a split besides, in lower case."""


def split_names(split: Split) -> tuple[str, ...]:
    """The names that a split may have in a dataset, the usual one first."""
    return ("train",) if split == "train" else VAL_SPLITS


def usual_split(name: str) -> str | None:
    """The one of ``SPLITS`` that a name in any case is of, such as ``Training``; None where it is of none."""
    name = name.lower()
    name = OTHER_NAMES.get(name, name)
    return name if name in SPLITS else None
