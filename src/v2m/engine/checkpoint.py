"""Checkpoints: whole, checked, and only the last ones."""

import os
import pickletools
import re
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from v2m.system.errors import first_line, shown
from v2m.system.files import clear_partial, file_sha256, flush_folder, new_partial, open_file, put_in_place
from v2m.system.names import shell_word

NAME = r"epoch-\d{5}-step-\d{7}-[0-9a-f]{16}\.pt"
DAMAGED = ".damaged"
ALLOCATING = ("Tensor", "bytearray")
"""What a pickle could call with a number of bytes."""


class Checkpoints:
    """The checkpoints of a run, of which the last ones are kept.

    A checkpoint is written beside its place and renamed into it. Its name ends with the start of the SHA-256
    of its content, so that a flipped byte or a missing end is noticed.

    Args:
        folder: Where they are; made when the first one is saved.
        keep_last: How many are kept.
    """

    def __init__(self, folder: Path, keep_last: int = 2) -> None:
        self.folder, self._keep_last = folder, keep_last

    @property
    def paths(self) -> list[Path]:
        """The checkpoints, the last one first."""
        found = (path for path in self.folder.glob("*.pt") if re.fullmatch(NAME, path.name))
        return sorted(found, reverse=True)

    @property
    def damaged(self) -> list[Path]:
        """Checkpoints that were found damaged."""
        return sorted(self.folder.glob(f"*{DAMAGED}"))

    def save(self, epoch: int, step: int, state: dict[str, Any]) -> Path:
        """Keep a state of tensors and plain data.

        Args:
            epoch: The epoch being trained.
            step: Its steps that are done.
            state: What ``torch.load(weights_only=True)`` can read.
        """
        self.folder.mkdir(exist_ok=True)
        clear_partial(self.folder)  # of a process that was killed: one at a time saves here
        partial = new_partial(self.folder / "checkpoint")
        try:
            with open(partial, "wb") as file:  # by its path, torch.save would not say that the disk is full
                torch.save(state, file)
            path = self.folder / f"epoch-{epoch:05d}-step-{step:07d}-{_digest(partial)}.pt"
            put_in_place(partial, path)
            flush_folder(self.folder)  # before older ones go
        finally:
            partial.unlink(missing_ok=True)
        for old in self.paths[self._keep_last :]:
            old.unlink()
        return path

    def last_whole(
        self, warn: Callable[[str], None], check: Callable[[Any], None] = lambda state: None
    ) -> Path:
        """The last checkpoint that is as it was written and can be read; others are renamed, and told about.

        Args:
            warn: Told of each that is damaged.
            check: Raises a ValueError for what is no state; its message goes on after "it".

        Raises:
            FileNotFoundError: there is no checkpoint.
            OSError: all are damaged.
        """
        paths = self.paths
        if not paths and not self.damaged:
            raise FileNotFoundError(f"resume: {self.folder} has no checkpoint; nothing was saved there yet")
        for i, path in enumerate(paths):
            reason = _damage(path, check)
            if reason is None:
                return path
            path.rename(path.with_name(path.name + DAMAGED))
            others = paths[i + 1 :]
            then = f"going on from the one before, {others[0].name}" if others else "there is no other"
            warn(f"{path} is damaged, {reason} (it is {path.name}{DAMAGED} now); {then}")
        raise OSError(
            f"resume: no checkpoint in {self.folder} is whole; what they hold is in *{DAMAGED}. "
            f"A new run can start from its weights: --pretrained {shell_word(str(self.folder.parent))}"
        )


def read_checkpoint(path: Path) -> dict[str, Any]:
    """The state in a checkpoint, on the CPU.

    Raises:
        OSError: it cannot be read.
    """
    try:
        _load(path, mmap=True)  # nothing is copied yet, and no tensor may be larger than the file
        return _load(path, mmap=False)
    except ValueError as error:
        raise OSError(f"resume: {path} {error}") from None


def _load(path: Path, mmap: bool) -> Any:
    """What a checkpoint holds.

    Raises:
        ValueError: it cannot be read; the message says why.
    """
    try:
        _check_archive(path)
        return torch.load(path, map_location="cpu", weights_only=True, mmap=mmap)
    except MemoryError:
        raise
    except Exception as error:  # torch.load raises whatever a strange file makes its readers raise
        raise ValueError(f"cannot be read ({shown(first_line(error))})") from None


def _check_archive(path: Path) -> None:
    """See that a file takes no more memory than its size: nothing in it is compressed or made by a number.

    Raises:
        ValueError: it may take more.
        OSError, BadZipFile: it cannot be read.
    """
    with open_file(path) as file, zipfile.ZipFile(file) as archive:
        items = archive.infolist()
        is_plain = all(item.compress_type == zipfile.ZIP_STORED for item in items)
        size = file.seek(0, os.SEEK_END)
        if not is_plain or sum(item.file_size for item in items) > size:
            raise ValueError("compressed, expected a file as torch.save writes it")
        if min(item.header_offset for item in items):  # readers may differ about what such a file holds
            raise ValueError("something is before the archive")
        for item in items:
            if item.filename.lower().endswith(".pkl"):
                _check_pickle(archive.read(item))


def _check_pickle(content: bytes) -> None:
    for operation, argument, _ in pickletools.genops(content):
        if operation.name == "GLOBAL" and str(argument).split()[-1] in ALLOCATING:
            raise ValueError(f"{argument} in it, expected tensors and plain data")


def _damage(path: Path, check: Callable[[Any], None]) -> str | None:
    """What is wrong with a checkpoint, if anything is."""
    try:
        if _digest(path) not in path.name:
            return "it is not what was written"
        check(_load(path, mmap=True))
    except ValueError as error:
        return f"it {error}"
    return None


def _digest(path: Path) -> str:
    if not path.is_file():
        raise ValueError("is no regular file")
    return file_sha256(path)[:16]
