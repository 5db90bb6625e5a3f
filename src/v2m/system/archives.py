"""Archives that a stranger may have written: unpacked, or read as ``torch.save`` writes them."""

import os
import pickletools
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import IO

from v2m.system.errors import DataError, short
from v2m.system.files import open_file

ALLOCATING = ("Tensor", "bytearray")
"""Names that a pickle could call with a number of bytes, which would then be allocated."""
FILES = 2**20
"""Most files of an archive that is unpacked."""
DAMAGED = (tarfile.TarError, zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError)
"""Errors of archives that are damaged, or packed in a way that is not read."""


def unpack(archive: Path, inner: str, target: Path, most: int) -> None:
    """Write the files of a folder in an archive (zip, or tar of any compression) into a new folder.

    Regular files alone are written, each below ``target``; links and devices are left out.

    Args:
        archive: The file.
        inner: Name of the folder, at any depth in the archive.
        target: Where its files go; it must not be there.
        most: Bytes that the files may have together.

    Raises:
        DataError: it cannot be read, has no such folder, or its files have more bytes or impossible names.
        OSError: a file cannot be written.
    """
    target.mkdir()
    left, count = most, 0
    try:
        for name, content in _members(archive):
            parts = PurePosixPath(name).parts
            if inner not in parts[:-1]:
                continue
            within = parts[parts.index(inner) + 1 :]
            # A name must stay a name on Windows too, where other letters separate folders and drives.
            if any(part == ".." or "\\" in part or ":" in part or "\0" in part for part in within):
                raise DataError(f"{archive} has a file with the name {name!r}, which leads elsewhere")
            path, count = target.joinpath(*within), count + 1
            path.parent.mkdir(parents=True, exist_ok=True)
            with content, open(path, "xb") as file:
                left -= _copy(content, file, left)
            if left < 0 or count > FILES:
                raise DataError(f"{archive} unpacks to more than {most:,} bytes or {FILES:,} files")
    except DAMAGED as error:
        raise DataError(f"{archive} is no whole archive ({short(error)})") from None
    except OSError as error:
        if error.errno is not None:
            raise
        raise DataError(f"{archive} is no whole archive ({short(error)})") from None  # gzip's own
    if not count:
        raise DataError(f"{archive} has no folder {inner}")


def _members(archive: Path) -> Iterator[tuple[str, IO[bytes]]]:
    """Names of regular files in an archive, in their order, each opened to be read."""
    with open_file(archive) as file:
        if zipfile.is_zipfile(file):
            with zipfile.ZipFile(file) as packed:
                for item in packed.infolist():
                    if not item.is_dir():
                        yield item.filename, packed.open(item)
            return
        file.seek(0)
        with tarfile.open(fileobj=file, mode="r|*") as tar:
            for member in tar:
                if member.isreg() and (content := tar.extractfile(member)):
                    yield member.name, content


def _copy(content: IO[bytes], file: IO[bytes], most: int) -> int:
    """Copy a file, and one byte more than ``most`` at the most; the number of bytes."""
    while (done := file.tell()) <= most and (block := content.read(min(2**18, most + 1 - done))):
        file.write(block)
    return file.tell()


def check_stored(path: Path) -> None:
    """See that reading an archive takes no more memory than the file has bytes.

    Nothing in it may be compressed, and no pickle in it may allocate memory by a number alone.

    Raises:
        ValueError: it may take more; the message is the reason.
        OSError, BadZipFile: it cannot be read.
    """
    with open_file(path) as file, zipfile.ZipFile(file) as archive:
        items = archive.infolist()
        is_plain = all(item.compress_type == zipfile.ZIP_STORED for item in items)
        size = file.seek(0, os.SEEK_END)
        if not is_plain or sum(item.file_size for item in items) > size:
            raise ValueError("compressed, expected a file as torch.save writes it")
        if min(
            (item.header_offset for item in items), default=0
        ):  # readers may differ about what such a file holds
            raise ValueError("something is before the archive")
        for item in items:
            if item.filename.lower().endswith(".pkl"):
                _check_pickle(archive.read(item))


def _check_pickle(content: bytes) -> None:
    for operation, argument, _ in pickletools.genops(content):
        if operation.name == "GLOBAL" and str(argument).split()[-1] in ALLOCATING:
            raise ValueError(f"{argument} in it, expected tensors and plain data")
