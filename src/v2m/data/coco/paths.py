"""Where the image files are that annotations name."""

import os
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from v2m.data.image_files import walk_files
from v2m.system.errors import DataError, few, same_name, shown


class Found(NamedTuple):
    """The files of images.

    Attributes:
        names: Paths of all images in the folder; of one that is missing, a path where no file is.
        moved: Names in the annotations of those that are there under another path.
        missing: Names of those that are not there.
        shared: Paths of those that are the file of an image before them, too.
        outside: Names of the missing ones that lead out of the folder, where that is not allowed.
    """

    names: list[str]
    moved: list[str]
    missing: list[str]
    shared: list[str]
    outside: list[str]


def find_files(
    annotations: Path, folder: Path, names: Sequence[str], *, allow_outside: bool = False
) -> Found:
    """Find image files below a folder, and nowhere else unless that is allowed.

    A name is a path in the folder. Where there is none, it is compared without the folders before it, and
    without regard to kinds of slashes, capitals and forms of Unicode; last, a file of the same name in any
    folder below. What then fits more than one file, or is the file of another image, is missing.

    Args:
        annotations: Their file, for messages.
        folder: The folder of the images.
        names: Their names in the annotations.
        allow_outside: Whether names that fit nothing there, and lead out of it, are taken as they are.

    Raises:
        DataError: none is there.
    """
    there = list_files(folder)
    paths = [name if name in there else None for name in names]
    if None not in paths:
        return Found(list(names), [], [], _repeated(folder, names), [])
    by_key: dict[str, set[str]] = defaultdict(set)
    for path in there:
        key = _key(path)
        by_key[key].add(path)
        by_key[f"**/{key.rsplit('/', 1)[-1]}"].add(path)
    guesses = [None if path else _guess(name, by_key) for name, path in zip(names, paths, strict=True)]
    pairs = {*zip(names, paths, strict=True), *zip(names, guesses, strict=True)}
    taken = Counter(path for _, path in pairs if path)
    sure = [guess if guess and taken[guess] == 1 else None for guess in guesses]
    files = [path or guess for path, guess in zip(paths, sure, strict=True)]
    if allow_outside:
        files = [file or _outside(folder, name) for name, file in zip(names, files, strict=True)]
    missing = [name for name, file in zip(names, files, strict=True) if not file]
    outside = [] if allow_outside else [*filter(leads_outside, missing)]
    if len(missing) == len(names):
        raise DataError(
            f"data: none of the {len(names):,} images of {annotations} is in {folder}: {few(missing)}; "
            f"file_name should be the path of an image in that folder{_tell_outside(outside)}"
        )
    return Found(
        names=[file or _nowhere(name, there) for name, file in zip(names, files, strict=True)],
        moved=[name for name, guess in zip(names, sure, strict=True) if guess],
        missing=missing,
        shared=_repeated(folder, [file for file in files if file]),
        outside=outside,
    )


def leads_outside(name: str) -> bool:
    """Whether a path in a data file is absolute, or climbs out of the folder that it is counted from."""
    return os.path.isabs(name) or os.path.normpath(name).split(os.sep)[0] == os.pardir


def _outside(folder: Path, name: str) -> str | None:
    """A name that leads out of the folder, if a regular file is there."""
    return name if leads_outside(name) and os.path.isfile(folder / name) else None


def _tell_outside(names: Sequence[str]) -> str:
    """The end of a line on files that are missing."""
    if not names:
        return ""
    count = f"{len(names):,} of them {'lead' if len(names) > 1 else 'leads'} out of it"
    return f"; {count}, the first is {shown(names[0])}: --allow_outside true reads them"


def list_files(folder: Path) -> set[str]:
    """Paths of the files in a folder and below, with slashes, counted from the folder."""
    if not folder.is_dir():
        return set()
    start = len(str(folder)) + 1
    return {path[start:].replace(os.sep, "/") for path in walk_files(folder)}


def _guess(name: str, by_key: dict[str, set[str]]) -> str | None:
    """The one file that a name can mean."""
    parts = [part for part in _key(name).split("/") if part not in ("", ".", "..")]
    keys = ["/".join(parts[start:]) for start in range(len(parts))]
    fits = next((by_key[key] for key in [*keys, f"**/{''.join(parts[-1:])}"] if key in by_key), set())
    return next(iter(fits)) if len(fits) == 1 else None


def _key(path: str) -> str:
    return same_name(path.replace("\\", "/")).casefold()


def _nowhere(name: str, there: set[str]) -> str:
    """A path in the folder, like a name, that is none of the files there."""
    last = name.replace("\\", "/").rsplit("/", 1)[-1]
    last = "unnamed" if last in ("", ".", "..") else last
    while last in there:
        last = f"missing {last}"
    return last


def _repeated(folder: Path, files: Sequence[str]) -> list[str]:
    """Those that are there before, in order."""
    paths = [os.path.normpath(os.path.join(folder, file)) for file in files]
    first = {path: place for place, path in reversed([*enumerate(paths)])}
    return [file for place, file in enumerate(files) if first[paths[place]] < place]


def describe_moved(annotations: Path, folder: Path, found: Found) -> list[str]:
    """A line for the files that were looked for."""
    if not found.moved:
        return []
    return [
        f"{annotations}: {len(found.moved):,} of {len(found.names):,} images have a file_name that is no "
        f"path in {folder}; files of that name were taken, the first is {shown(found.moved[0])}"
    ]


def describe_missing(annotations: Path, folder: Path, found: Found) -> list[str]:
    """A line for the files that are missing."""
    if not found.missing:
        return []
    return [
        f"{annotations}: {len(found.missing):,} of {len(found.names):,} images are not in {folder}, the "
        f"first is {shown(found.missing[0])}; file_name should be the path of an image in that folder"
        f"{_tell_outside(found.outside)}"
    ]


def describe_shared(annotations: Path, found: Found) -> list[str]:
    """A line for the images that have the file of another one."""
    if not found.shared:
        return []
    return [
        f"{annotations}: {len(found.shared):,} of {len(found.names):,} images have the file of another one, "
        f"the first is {shown(found.shared[0])}; objects of the one are background in the other: give them "
        "one image_id"
    ]
