"""Where the files of one split of a folder may be: what every format looks through."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from v2m.data.classes.dataset import LabelledImages
from v2m.data.splits import SPLITS

SPLIT_IN_NAME = re.compile(rf"(?<![a-z])({'|'.join(SPLITS)})(?![a-z])")
"""A split as a word of its own: ``birds-train-01.tar`` is of one, ``trainer.tar`` is not."""

Opener: TypeAlias = Callable[[], LabelledImages]
"""Opens a split that was found."""


@dataclass(frozen=True)
class SplitSource:
    """One split of a folder, of a format that is not known yet.

    Attributes:
        root: The folder of the dataset.
        split: The split, by the name that it has there.
        data_dir: Where copies of data are kept that a format must unpack.
        allow_outside: Whether files of the dataset may name images outside of it.
    """

    root: Path
    split: str
    data_dir: Path
    allow_outside: bool

    @property
    def folder(self) -> Path:
        """The folder of the split, which need not be there."""
        return self.root / self.split

    def files(self, suffixes: tuple[str, ...]) -> list[Path]:
        """Files of the split: those in its folder, else those with its name beside each other or in ``data``.

        Args:
            suffixes: Ends of their names, in lower case.
        """
        # A folder of the split goes before files that are named after it.
        if found := _files(self.folder, suffixes):
            return found
        for folder in (self.root, self.root / "data"):
            if found := [path for path in _files(folder, suffixes) if _split_in_name(path) == self.split]:
                return found
        return []


def _files(folder: Path, suffixes: tuple[str, ...]) -> list[Path]:
    paths = folder.iterdir() if folder.is_dir() else ()
    return sorted(p for p in paths if p.name.lower().endswith(suffixes) and not p.name.startswith("."))


def _split_in_name(path: Path) -> str | None:
    found = SPLIT_IN_NAME.search(path.name.lower())
    return found[1] if found else None
