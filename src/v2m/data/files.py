"""Finding files, and writing them so that none is ever half there."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path


def files_below(folder: Path) -> Iterator[str]:
    """Paths of the files in a folder and below, in order; hidden files and folders are left out.

    Links to folders are followed, but no folder is looked into twice. Links to nothing count as files.
    """
    seen = set()
    for parent, below, files in os.walk(folder, followlinks=True):
        place = os.path.realpath(parent)
        below[:] = sorted(name for name in below if not name.startswith(".") and place not in seen)
        if place not in seen:
            seen.add(place)
            yield from (os.path.join(parent, name) for name in sorted(files) if not name.startswith("."))


def replace_file(path: Path, write: Callable[[Path], object]) -> None:
    """Let ``write`` write beside ``path`` and rename, so that an interrupted write leaves the old file.

    Raises:
        OSError: it cannot be written; the error has the name of ``path``.
    """
    partial = path.with_name(f".{path.name}.partial")
    try:
        try:
            write(partial)
            put_in_place(partial, path)
        finally:
            partial.unlink(missing_ok=True)
    except OSError as error:  # a full disk has no file name, others that of the partial file
        if error.errno is None:
            raise
        raise OSError(error.errno, error.strerror, str(path)) from None


def put_in_place(partial: Path, path: Path) -> None:
    """Rename a complete file once it is on the disk, so that a power cut leaves the old one or the new."""
    with open(partial, "rb+") as file:
        os.fsync(file.fileno())
    os.replace(partial, path)


def flush_folder(path: Path) -> None:
    """Wait until the names in a folder are on the disk, where the system can tell."""
    if os.name != "posix":
        return
    folder = os.open(path, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
