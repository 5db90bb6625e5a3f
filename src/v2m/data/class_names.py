"""Names of classes: their lists beside the data, and those that several classes share."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from v2m.system.errors import DataError
from v2m.system.files import read_names

LISTS = ("classes.txt", "labels.txt")


def read_class_names(root: Path) -> list[str] | None:
    """The lines of ``classes.txt`` or ``labels.txt`` in a folder; None where there is neither.

    Raises:
        DataError: a line is no name or there twice, or the file is not in UTF-8.
    """
    path = next((root / name for name in LISTS if (root / name).exists()), None)
    if path is None:
        return None
    names = read_names(path)
    first: dict[str, int] = {}
    for line, name in enumerate(names, 1):
        if first.setdefault(name, line) < line:
            raise DataError(f"{path}, line {line} has {name} twice, as line {first[name]} has it")
    return names


def told_apart(names: Sequence[str], identifiers: Sequence[str]) -> list[str]:
    """The names of classes, those of several with their identifier: a crane is a bird and a machine."""
    count = Counter(names)
    return [
        f"{name} ({identifier})" if count[name] > 1 else name
        for name, identifier in zip(names, identifiers, strict=True)
    ]
