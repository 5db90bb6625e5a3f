"""Checkpoints: whole, checked, and only the last ones."""

import hashlib
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from v2m.data import first_line
from v2m.data.files import flush_folder, put_in_place
from v2m.data.names import shell_word

NAME = r"epoch-\d{5}-step-\d{7}-[0-9a-f]{16}\.pt"
PARTIAL, DAMAGED = ".checkpoint.partial", ".damaged"


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
        partial = self.folder / PARTIAL
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

    def last_whole(self, warn: Callable[[str], None]) -> Path:
        """The last checkpoint that is as it was written; damaged ones are renamed, and told about.

        Raises:
            FileNotFoundError: there is no checkpoint.
            OSError: all are damaged.
        """
        paths = self.paths
        if not paths and not self.damaged:
            raise FileNotFoundError(f"resume: {self.folder} has no checkpoint; nothing was saved there yet")
        for i, path in enumerate(paths):
            if _digest(path) in path.name:
                return path
            path.rename(path.with_name(path.name + DAMAGED))
            others = paths[i + 1 :]
            then = f"going on from the one before, {others[0].name}" if others else "there is no other"
            warn(f"{path} is damaged, it is not what was written (it is {path.name}{DAMAGED} now); {then}")
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
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch.load raises whatever a strange file makes its readers raise
        raise OSError(f"resume: {path} cannot be read ({first_line(error)})") from None


def _digest(path: Path) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(2**20):
            digest.update(block)
    return digest.hexdigest()[:16]
