"""Datasets as their authors give them away: found in a folder, or downloaded and unpacked to it."""

import hashlib
import os
import shutil
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from tempfile import mkdtemp

from filelock import FileLock, Timeout

from v2m.system.archives import unpack
from v2m.system.downloads import WebFile, check_file, download
from v2m.system.errors import DataError
from v2m.system.files import check_lock, read_file

SECONDS_BEFORE_WORD = 1.0
"""How long another process is waited for before that is said."""


@dataclass(frozen=True)
class Original:
    """The archive of a dataset, and the folder that it unpacks to.

    Attributes:
        name: What the dataset is called here.
        file: The archive on the web.
        archives: Names that the archive may have, that of a download first.
        folder: Name of the folder in the archive, which is also that of the unpacked dataset.
        holds: Files and folders that an unpacked dataset has.
        unpacked: Most bytes of its files.
        trees: Hashes of folders in it, as git has them, where the archive has no known hash of its own.
    """

    name: str
    file: WebFile
    archives: tuple[str, ...]
    folder: str
    holds: tuple[str, ...]
    unpacked: int
    trees: Mapping[str, str] = field(default_factory=dict)


def find_original(original: Original, data_dir: Path) -> Path:
    """The unpacked dataset: in the data folder, or that folder itself; else unpacked or downloaded to it.

    Raises:
        DataError: it is not there and cannot be had, or an archive is damaged.
    """
    if folder := _find_unpacked(original, data_dir):
        _say(f"{original.name}: found in {folder}")
        return folder
    try:
        data_dir.mkdir(parents=True, exist_ok=True)
        with _locked(original, data_dir):
            return _find_unpacked(original, data_dir) or _unpack(original, data_dir)
    except OSError as error:
        raise DataError(f"data: {original.name} cannot be kept in {data_dir} ({error})") from None


@contextmanager
def _locked(original: Original, data_dir: Path) -> Iterator[None]:
    """Let one process at a time download and unpack a dataset. The others wait, and then find it."""
    path = data_dir / f"{original.name}.lock"
    check_lock(path)
    lock = FileLock(path)
    try:
        lock.acquire(timeout=SECONDS_BEFORE_WORD)
    except Timeout:
        _say(f"{original.name}: waiting for another process, which has {path}")
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _find_unpacked(original: Original, data_dir: Path) -> Path | None:
    for folder in (data_dir / original.folder, data_dir):
        if all((folder / part).exists() for part in original.holds):
            return folder
    return None


def _unpack(original: Original, data_dir: Path) -> Path:
    archive = next((path for name in original.archives if (path := data_dir / name).is_file()), None)
    if archive:
        _say(f"{original.name}: found {archive}")
        check_file(original.file, archive)
    else:
        archive = _download(original, data_dir)
    _say(f"{original.name}: unpacking to {data_dir / original.folder}")
    # Others of this name were left by processes that were killed: this one has the lock.
    start = f".unpacking-{original.name}-"
    for left in data_dir.glob(f"{start}*"):
        shutil.rmtree(left, ignore_errors=True)
    work = Path(mkdtemp(dir=data_dir, prefix=start))
    try:
        unpack(archive, original.folder, work / original.folder, original.unpacked)
        for folder, expected in original.trees.items():
            if git_tree(work / original.folder / folder) != expected:
                raise DataError(
                    f"data: {folder} in {archive} is not that of {original.name} as it was published; "
                    "delete the archive to have it anew"
                )
        whole = data_dir / original.folder
        if whole.exists():
            raise DataError(f"data: {whole} is not a whole {original.name}; move it away to have it anew")
        os.replace(work / original.folder, whole)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return whole


def _download(original: Original, data_dir: Path) -> Path:
    archive = data_dir / original.archives[0]
    try:
        download(original.file, archive)
    except DataError as error:
        raise DataError(
            f"data: {original.name} is not in {data_dir}, and {error}; where you have {archive.name} or "
            f"{original.folder}, name the folder that it is in by --data_dir"
        ) from None
    return archive


def git_tree(folder: Path) -> str:
    """The hash that git has for a folder of plain files: of their names and contents."""
    tree = b""
    for path in sorted(folder.iterdir(), key=lambda path: os.fsencode(path.name)):
        content = read_file(path)
        blob = hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False)
        tree += b"100644 " + os.fsencode(path.name) + b"\0" + blob.digest()
    return hashlib.sha1(b"tree %d\0" % len(tree) + tree, usedforsecurity=False).hexdigest()


@lru_cache
def _say(line: str) -> None:
    """A line to the user, once, and from one process of a machine."""
    if os.environ.get("LOCAL_RANK", "0") == "0":
        sys.stderr.write(f"{line}\n")
