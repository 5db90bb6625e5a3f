"""Checkpoints: each is written whole, its name proves its content, and only the last ones are kept."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from v2m.system.archives import check_stored
from v2m.system.errors import first_line, shown
from v2m.system.files import clear_partial, file_sha256, flush_folder, new_partial, put_in_place
from v2m.system.names import shell_word

NAME = r"epoch-\d{5}-step-\d{7}-[0-9a-f]{16}\.pt"
DAMAGED = ".damaged"


class Checkpoint(NamedTuple):
    """A checkpoint that was read: its file, and the state in it, on the CPU."""

    path: Path
    state: dict[str, Any]


class Checkpoints:
    """The checkpoints of a run, of which the last ones are kept.

    A checkpoint is first written to a partial file, which is then renamed. Its name ends with the start of
    the SHA-256 of its content. So a flipped byte or a missing end is noticed.

    Args:
        folder: Where they are. The folder is made when the first one is saved.
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
        """Save a state of tensors and plain data.

        Args:
            epoch: The epoch being trained.
            step: How many of its steps are done.
            state: What ``torch.load(weights_only=True)`` can read.
        """
        self.folder.mkdir(exist_ok=True)
        clear_partial(self.folder)  # of a process that was killed: one at a time saves here
        partial = new_partial(self.folder / "checkpoint")
        import torch  # takes seconds, which a look at the files need not wait for

        try:
            with open(partial, "wb") as file:  # by its path, torch.save would not say that the disk is full
                torch.save(state, file)
            # The name needs the hash of what is on the disk, so the file is named last.
            path = self.folder / f"epoch-{epoch:05d}-step-{step:07d}-{_digest(partial)}.pt"
            put_in_place(partial, path)
            flush_folder(self.folder)  # before older ones go
        finally:
            partial.unlink(missing_ok=True)
        for old in self.paths[self._keep_last :]:
            old.unlink()
        return path

    def last_whole(
        self, warn: Callable[[str], None], check: Callable[[Any], None] | None = None
    ) -> Checkpoint:
        """The last checkpoint that is as it was written and can be read.

        Those after it are damaged. They are renamed, so that nobody looks at them again.

        Args:
            warn: Told of each one that is damaged.
            check: Raises a ValueError for what is no state; its message goes on after "it".

        Raises:
            FileNotFoundError: there is no checkpoint.
            OSError: all are damaged.
        """
        paths = self.paths
        if not paths and not self.damaged:
            raise FileNotFoundError(f"resume: {self.folder} has no checkpoint; nothing was saved there yet")
        for i, path in enumerate(paths):
            try:
                return Checkpoint(path, _read_whole(path, check))
            except ValueError as error:
                reason = f"it {error}"
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
        return _load(path)
    except ValueError as error:
        raise OSError(f"resume: {path} {error}") from None


def _read_whole(path: Path, check: Callable[[Any], None] | None) -> dict[str, Any]:
    """The state in a checkpoint that is as it was written.

    Raises:
        ValueError: something is wrong with it; the message goes on after "it".
    """
    if _digest(path) not in path.name:
        raise ValueError("is not what was written")
    state = _load(path)
    if check:
        check(state)
    return state


def _load(path: Path) -> Any:
    """What a checkpoint holds.

    Raises:
        ValueError: it cannot be read; the message says why.
    """
    try:
        check_stored(path)
        import torch

        return torch.load(path, map_location="cpu", weights_only=True)
    except MemoryError:
        raise
    except Exception as error:  # torch.load raises whatever a strange file makes its readers raise
        raise ValueError(f"cannot be read ({shown(first_line(error))})") from None


def _digest(path: Path) -> str:
    if not path.is_file():
        raise ValueError("is no regular file")
    return file_sha256(path)[:16]
