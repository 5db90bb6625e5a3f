"""Writing files so that none is ever half there, and reading those that people write."""

import codecs
import os
from collections.abc import Callable
from pathlib import Path

from v2m.data.errors import DataError, same_name


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


def read_lines(path: Path) -> list[str]:
    """Lines of a text file in UTF-8, without the spaces around each, in Unicode's form NFC.

    A byte-order mark and empty lines at the end are left out.

    Raises:
        DataError: it is in another encoding.
        OSError: it cannot be read.
    """
    content = path.read_bytes()
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise DataError(f"{path} is in UTF-16, expected UTF-8: save it anew")
    lines = content.removeprefix(codecs.BOM_UTF8).rstrip().splitlines()
    for number, line in enumerate(lines, 1):
        if b"\0" in line or line.decode("utf-8", "ignore").encode() != line:
            found = line.decode("latin-1")[:40]
            raise DataError(f"{path}, line {number}: {found!r} is not UTF-8, save the file anew")
    return [same_name(line.decode().strip()) for line in lines]


def read_names(path: Path) -> list[str]:
    """The lines of a text file, a name each.

    Raises:
        DataError: a line is empty, there are none, or the file is in another encoding.
    """
    names = read_lines(path)
    if "" in names:
        raise DataError(f"{path}, line {names.index('') + 1} is empty, expected a name")
    if not names:
        raise DataError(f"{path} has no lines, expected names")
    return names
