"""Writing files so that none is ever half there, and reading those that people write."""

import codecs
import hashlib
import io
import json
import os
import re
import secrets
import stat
import time
from collections.abc import Callable
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Any, BinaryIO

from v2m.system.errors import DataError, first_line, same_name

SETTINGS_BYTES = 2**26
"""The largest file of settings or names that is read."""
BUFFER_BYTES = 2**16
DEEPEST = 32
"""Most levels of lists and mappings in settings."""
PARTIAL = r"\..*-[0-9a-f]{16}\.partial"
"""Names of partial files."""
SECONDS_TO_WRITE = 3600
"""Partial files that are older were left by a process that was killed."""


def replace_file(path: Path, write: Callable[[Path], object]) -> None:
    """Let ``write`` write beside ``path`` and rename, so that an interrupted write leaves the old file.

    Whatever has the name of ``path``, a link too, is replaced and not written through. Any number of
    processes may write one file at a time: the last one counts.

    Raises:
        OSError: it cannot be written; the error has the name of ``path``.
    """
    try:
        _clear_old_partial(path.parent)
        partial = new_partial(path)
        try:
            write(partial)
            put_in_place(partial, path)
        finally:
            partial.unlink(missing_ok=True)
    except OSError as error:  # a full disk has no file name, others that of the partial file
        if error.errno is None:
            raise
        raise OSError(error.errno, error.strerror, str(path)) from None


def new_partial(path: Path) -> Path:
    """Make an empty file beside ``path``, under a name that nobody can foresee."""
    partial = path.with_name(f".{path.name[:32]}-{secrets.token_hex(8)}.partial")
    os.close(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0), 0o666))
    return partial


def clear_partial(folder: Path, seconds: float = 0) -> None:
    """Delete the partial files in a folder that have not changed for so long."""
    with os.scandir(folder) as entries:
        left = [entry for entry in entries if re.fullmatch(PARTIAL, entry.name)]
    for entry in left:
        with suppress(OSError):  # another process may have done so
            if entry.stat(follow_symlinks=False).st_mtime <= time.time() - seconds:
                os.unlink(entry.path)


@lru_cache
def _clear_old_partial(folder: Path) -> None:
    """Once for each folder: there may be many files in it."""
    with suppress(OSError):
        clear_partial(folder, SECONDS_TO_WRITE)


def refuse_link(path: Path, remedy: str) -> None:
    """See that a place to write to is no link: in a folder of others it could lead anywhere.

    Raises:
        DataError: it is one; the message ends with the remedy.
    """
    if path.is_symlink() or getattr(path, "is_junction", bool)():
        raise DataError(f"{path} is a link, and nothing is written through it; {remedy}")


def check_lock(path: Path) -> None:
    """See that a file can be opened to lock it, without opening or making another one.

    Raises:
        DataError: it is a link, or no regular file.
    """
    refuse_link(path, "delete it")
    if path.exists() and not path.is_file():
        raise DataError(f"{path} is no regular file, expected one or none; delete it")


def put_in_place(partial: Path, path: Path) -> None:
    """Rename a complete file once it is on the disk, so that a power cut leaves the old one or the new."""
    # Some systems rename before the bytes are on the disk, and a power cut would leave an empty file.
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


def open_file(path: str | Path) -> BinaryIO:
    """A file, opened to read its bytes.

    Raises:
        DataError: it is a pipe, a socket, a device or a folder, which might never end.
        OSError: it cannot be opened.
    """
    if not stat.S_ISREG(os.stat(path).st_mode):
        raise DataError(f"{path} is no regular file, expected one")
    # Opened without waiting: since the look above, it may have become a pipe that nobody writes to.
    file = _File(path, opener=_open_at_once)
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):  # where it was exchanged since
        file.close()
        raise DataError(f"{path} is no regular file, expected one")
    return io.BufferedReader(file, BUFFER_BYTES)


class _File(io.FileIO):
    """A file whose errors name it, and which ends where it would wait, as some of the system's do."""

    def readinto(self, buffer: Any) -> int:
        try:
            return super().readinto(buffer) or 0
        except OSError as error:
            raise OSError(error.errno, error.strerror, self.name) from None

    def readall(self) -> bytes:
        try:
            return super().readall() or b""
        except OSError as error:
            raise OSError(error.errno, error.strerror, self.name) from None


def _open_at_once(path: str, _: int) -> int:
    return os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))


def read_file(path: str | Path, most: int = SETTINGS_BYTES) -> bytes:
    """The bytes of a file.

    Args:
        path: The file.
        most: The largest size in bytes.

    Raises:
        DataError: it is larger, or no regular file.
        OSError: it cannot be read.
    """
    with open_file(path) as file:
        content = file.read(most + 1)  # a size from the system may be that of a moment ago
    if len(content) > most:
        raise DataError(f"{path} has more than {most:,} bytes, expected a smaller file")
    return content


def file_sha256(path: str | Path) -> str:
    """The SHA-256 of a file, in hexadecimal.

    Raises:
        DataError: it is no regular file.
        OSError: it cannot be read.
    """
    digest = hashlib.sha256()
    with open_file(path) as file:
        while block := file.read(2**20):
            digest.update(block)
    return digest.hexdigest()


def read_json(path: str | Path, most: int = SETTINGS_BYTES) -> Any:
    """What a JSON file holds.

    Args:
        path: The file.
        most: Its largest size in bytes.

    Raises:
        DataError: it is no JSON, is nested too deeply or too large, or is no regular file.
        OSError: it cannot be read.
    """
    try:
        return json.loads(read_file(path, most))
    except RecursionError:
        raise DataError(f"{path} is no JSON that can be read (nested too deeply)") from None
    except DataError:
        raise
    except ValueError as error:
        raise DataError(f"{path} is no JSON ({first_line(error)})") from None


def check_plain(value: Any) -> None:
    """See that settings are plain: text, numbers, truth values, nothing, and lists and mappings of them.

    Raises:
        ValueError: they hold something else, or are nested too deeply; the message is the reason.
    """
    # Level by level: recursion would itself fail on what is nested too deeply.
    level = [value]
    for _ in range(DEEPEST):
        if not level:
            return
        below: list[Any] = []
        for item in level:
            if isinstance(item, dict):
                below += [*item.keys(), *item.values()]
            elif isinstance(item, list | tuple):
                below += item
            elif not isinstance(item, str | int | float | None):
                raise ValueError(f"a value of type {type(item).__name__}, expected text or numbers")
        level = below
    if level:
        raise ValueError(f"nested more than {DEEPEST} levels deep")


def read_lines(path: Path) -> list[str]:
    """Lines of a text file in UTF-8, without the spaces around each, in Unicode's form NFC.

    A byte-order mark and empty lines at the end are left out.

    Raises:
        DataError: it is in another encoding.
        OSError: it cannot be read.
    """
    content = read_file(path)
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
