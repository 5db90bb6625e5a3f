"""Where the image files are that annotations name."""

import os
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from v2m.data.image_files import is_image, list_files
from v2m.system.errors import DataError, few, same_name, shown


class Found(NamedTuple):
    """The files of images.

    Attributes:
        names: Paths of all images in the folder; of one that is missing, a path where no file is.
        moved: Names in the annotations of those that are there under another path.
        missing: Names of those that are not there.
        shared: Paths of those that are the file of an image before them, too.
        outside: Names of the missing ones that lead out of the folder, where that is not allowed.
        left_over: Image files in the folder that are of no image, in order.
    """

    names: list[str]
    moved: list[str]
    missing: list[str]
    shared: list[str]
    outside: list[str]
    left_over: list[str]


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
        return Found(list(names), [], [], _repeated(folder, names), [], _left_over(there, names))
    # Files by what may be compared: their path, and their name in any folder.
    by_key: dict[str, set[str]] = defaultdict(set)
    for path in there:
        key = _key(path)
        by_key[key].add(path)
        by_key[f"**/{key.rsplit('/', 1)[-1]}"].add(path)
    guesses = [None if path else _guess(name, by_key) for name, path in zip(names, paths, strict=True)]
    # A guess counts where it is the only image that means the file.
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
        # Of a missing image a path where nothing is, so that it is unreadable and not another image.
        names=[file or _nowhere(name, there) for name, file in zip(names, files, strict=True)],
        moved=[name for name, guess in zip(names, sure, strict=True) if guess],
        missing=missing,
        shared=_repeated(folder, [file for file in files if file]),
        outside=outside,
        left_over=_left_over(there, files),
    )


def _left_over(there: set[str], files: Sequence[str | None]) -> list[str]:
    return sorted(filter(is_image, there.difference(file for file in files if file)))


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
    seen: set[str] = set()
    repeated = []
    for file, path in zip(files, paths, strict=True):
        if path in seen:
            repeated.append(file)
        seen.add(path)
    return repeated


def describe_renamed(annotations: Path, folder: Path, found: Found) -> list[str]:
    """A line on images whose files were looked for, and one on those that share a file, if any."""
    looked_for = f"have a file_name that is no path in {folder}; files of that name were taken"
    remedy = "; objects of the one are background in the other: give them one image_id"
    return [
        *_describe(annotations, found, found.moved, looked_for),
        *_describe(annotations, found, found.shared, "have the file of another one", remedy),
    ]


def describe_missing(annotations: Path, folder: Path, found: Found) -> list[str]:
    """A line on the files that are missing, if there are any."""
    remedy = f"; file_name should be the path of an image in that folder{_tell_outside(found.outside)}"
    return _describe(annotations, found, found.missing, f"are not in {folder}", remedy)


def _describe(
    annotations: Path, found: Found, names: Sequence[str], what: str, remedy: str = ""
) -> list[str]:
    """A line on some of the images: how many there are of them, and the first."""
    if not names:
        return []
    count = f"{len(names):,} of {len(found.names):,} images"
    return [f"{annotations}: {count} {what}, the first is {shown(names[0])}{remedy}"]
