"""A run folder: which files are in it, and how each is written so that none is ever half there."""

import json
import math
import os
import re
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import IO, Any, TypeAlias

import yaml

from v2m.engine.checkpoint import Checkpoint, Checkpoints
from v2m.system.errors import first_line
from v2m.system.files import check_lock, clear_partial, read_file, refuse_link, replace_file
from v2m.system.names import shell_word
from v2m.system.yaml_files import read_yaml
from v2m.tasks.config import TrainConfig
from v2m.tasks.names import BEST, RUN_CONFIG, SAVING, WEIGHTS, run_of

LOCK = ".lock"

Metrics: TypeAlias = dict[str, float]


class RunFolder:
    """The files of one training run: their paths, and how they are written and read.

    Every file is first written to a partial file, which is then renamed. So an interrupted write leaves the
    old file. ``v2m.system.files.replace_file`` does this, ``v2m.engine.checkpoint`` for checkpoints.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)

    config = property(lambda self: self.path / RUN_CONFIG, doc="The resolved configuration.")
    metrics = property(lambda self: self.path / "metrics.jsonl", doc="One line per epoch.")
    unreadable = property(lambda self: self.path / "unreadable.jsonl", doc="One line per unreadable image.")
    best = property(lambda self: self.path / BEST, doc="The weights with the highest score.")
    checkpoints = property(lambda self: self.path / "checkpoints", doc="What resuming needs.")
    learning_curve = property(lambda self: self.path / "learning_curve.png", doc="Picture of the metrics.")

    @classmethod
    def of_model(cls, folder: Path) -> "RunFolder":
        """The run that the model in a folder is of: the folder itself, or the one whose ``best`` it is."""
        return cls(run_of(folder))

    def describe_weights(self, folder: Path, metrics: Sequence[str]) -> str:
        """Which weights of the run are in a folder, and where the others are; empty where it does not say.

        Args:
            folder: The folder of a model: that of the run, or its ``best``.
            metrics: Keys of the scores that tell which weights are the best, the first that was measured.
        """
        with suppress(ValueError):  # damaged metrics keep nobody from the weights
            if self.config.is_file() and (rows := self.read_metrics()):
                return self._describe(folder, rows, f"epoch {best_row(rows, metrics)['epoch']:.0f}")
        return ""

    def _describe(self, folder: Path, rows: Sequence[Metrics], best: str) -> str:
        # Checkpoints are named by the epoch and the steps of it, also where it is not done.
        name = next((path.name for path in self._checkpoints(1).paths), "")
        last = f"epoch {rows[-1]['epoch']:.0f}"
        if (place := re.match(r"epoch-(\d+)-step-(\d+)", name)) and int(place[2]):
            last = f"epoch {int(place[1])}, step {int(place[2])}"
        if folder != self.path:
            return f"the best weights, of {best}; the last, of {last}, are in {self.path}"
        if not self.best.is_dir():
            return f"the last weights, of {last}"
        if last == best:
            return f"the last weights, of {last}, which are the best too"
        return f"the last weights, of {last}; the best, of {best}, are in {self.best}"

    def create(self) -> None:
        """Make the folder, or take one of a run that had saved nothing.

        Raises:
            FileExistsError: the folder is there and is not empty.
        """
        was_run = self.config.is_file() and not self.has_checkpoint
        if not was_run and self.path.is_dir() and any(p.name != LOCK for p in self.path.iterdir()):
            raise FileExistsError(
                f"output: {self.path} is not empty, choose another folder "
                f"(a run is continued with: v2m train --resume {shell_word(str(self.path))})"
            )
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OSError(f"output: {self.path} cannot be made ({error.strerror})") from None

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other runs out of the folder. The lock ends with this process, however that ends.

        Raises:
            OSError: another process trains in the folder, or it cannot be written.
            DataError: something in it that is written to is a link.
        """
        lock = self.path / LOCK
        check_lock(lock)
        for folder in (self.best, self.checkpoints):
            refuse_link(folder, "put a folder in its place, with what it links to")
        try:
            file = open(lock, "a")  # noqa: SIM115
        except OSError as error:
            raise OSError(f"output: {self.path} cannot be written ({error.strerror})") from None
        with file:
            if not _lock(file):
                raise OSError(f"output: another process is training in {self.path}")
            # Nobody else writes here now, so these were left by a process that was killed.
            clear_partial(self.path)
            for left in self.path.glob(f"{SAVING}*"):
                shutil.rmtree(left, ignore_errors=True)
            try:
                yield
            finally:
                lock.unlink(missing_ok=True)

    def write_config(self, config: TrainConfig) -> None:
        """Write the configuration as YAML that ``v2m train --config`` takes."""
        plain = json.loads(json.dumps(asdict(config)))
        self._write(self.config, lambda path: path.write_text(yaml.safe_dump(plain, sort_keys=False)))

    def read_config(self) -> dict[str, Any]:
        """The configuration that was written.

        Raises:
            ValueError: it is damaged.
        """
        try:
            found = read_yaml(self.config)
            if not isinstance(found.get("data"), str):
                raise ValueError("no data")
        except ValueError as error:
            raise ValueError(
                f"{self.config} is damaged ({first_line(error)}); "
                "v2m train with the options of the run and --print_config prints a new one"
            ) from None
        return found

    def write_metrics(self, history: list[Metrics]) -> None:
        """Write one JSON line per epoch."""
        self._write_lines(self.metrics, history)

    def read_metrics(self) -> list[Metrics]:
        """The rows of ``write_metrics``; none where there is no file yet."""
        rows = self._read_lines(self.metrics)
        damaged = [number for number, row in enumerate(rows, 1) if not _is_metrics(row)]
        if damaged:
            raise ValueError(
                f"{self.metrics} is damaged in line {damaged[0]}; "
                f"v2m train --resume {shell_word(str(self.path))} writes it again"
            )
        return rows

    def write_unreadable(self, images: Iterable[tuple[str, str, str]]) -> None:
        """Add images that could not be read: split, name and reason. No image is listed twice."""
        listed = self.read_unreadable()
        known = {(row["split"], row["image"]) for row in listed}
        new = {(split, name): reason for split, name, reason in images if (split, name) not in known}
        if new:
            rows = [dict(split=split, image=name, reason=reason) for (split, name), reason in new.items()]
            self._write_lines(self.unreadable, [*listed, *rows])

    def read_unreadable(self) -> list[dict[str, str]]:
        """The rows of ``write_unreadable``, without those that are damaged."""
        rows = self._read_lines(self.unreadable)
        return [
            row
            for row in rows
            if isinstance(row, dict)
            and all(isinstance(row.get(name), str) for name in ("split", "image", "reason"))
        ]

    @property
    def has_checkpoint(self) -> bool:
        """Whether there is a checkpoint, be it damaged: then no other run may begin here."""
        checkpoints = self._checkpoints(1)
        return bool(checkpoints.paths or checkpoints.damaged)

    def write_checkpoint(self, state: dict[str, Any], keep_last: int) -> None:
        """Write what resuming needs: tensors and plain data, with ``epoch`` and ``step``."""
        checkpoints = self._checkpoints(keep_last)
        try:
            checkpoints.save(state["epoch"], state["step"], state)
        except Exception as error:  # torch.save raises RuntimeError where the disk is full
            raise _unsaved(checkpoints.folder, error) from None

    def find_checkpoint(
        self, warn: Callable[[str], None], check: Callable[[Any], None] | None = None
    ) -> Checkpoint:
        """The last checkpoint that is whole, as ``Checkpoints.last_whole`` finds it."""
        return self._checkpoints(1).last_whole(warn, check)

    def _checkpoints(self, keep_last: int) -> Checkpoints:
        return Checkpoints(self.checkpoints, keep_last)

    def write_model(self, save: Callable[[Path], None]) -> None:
        """Let ``save`` write the weights, with what it takes to load them."""
        self._save_model(self.path, save)

    def write_best(self, save: Callable[[Path], None]) -> None:
        """Let ``save`` write the best weights, into a folder of their own."""
        self.best.mkdir(exist_ok=True)
        self._save_model(self.best, save)

    def _save_model(self, folder: Path, save: Callable[[Path], None]) -> None:
        try:
            save(folder)
        except Exception as error:  # safetensors has its own error for a full disk
            raise _unsaved(folder / WEIGHTS, error) from None

    def _read_lines(self, path: Path) -> list[Any]:
        try:
            lines = read_file(path).decode("utf-8", "replace").split("\n")
        except (FileNotFoundError, NotADirectoryError):
            return []
        return [_json(line) for line in lines if line]

    def _write_lines(self, path: Path, rows: Iterable[Any]) -> None:
        lines = "".join(json.dumps(row) + "\n" for row in rows)
        self._write(path, lambda partial: partial.write_text(lines, encoding="utf-8"))

    def _write(self, path: Path, write: Callable[[Path], Any]) -> None:
        try:
            replace_file(path, write)
        except OSError as error:
            raise _unsaved(path, error) from None


def best_row(rows: Sequence[Metrics], metrics: Sequence[str]) -> Metrics:
    """The metrics of the epoch with the highest score, where several are equal the one with the lowest loss.

    Args:
        rows: The metrics of every epoch, at least one.
        metrics: Keys of scores without ``val_``; the first that was measured counts.
    """
    key = next((f"val_{name}" for name in metrics if f"val_{name}" in rows[-1]), "")
    return max(rows, key=partial(_score, key))


def _score(key: str, row: Metrics) -> tuple[float, float]:
    # Few images are soon all right; the loss still tells the epochs apart.
    score, loss = row.get(key, -math.inf), row.get("val_loss", math.inf)
    return (-math.inf if math.isnan(score) else score), (-math.inf if math.isnan(loss) else -loss)


def _lock(file: IO[str]) -> bool:
    """Lock a file for this process, and say whether that was possible. Its children have no lock."""
    if os.name == "posix":
        import fcntl

        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError):
            return False
        except OSError:  # a file system without locks
            return True
        # The one who had the lock may have deleted the file since it was opened here. Then it locks nothing.
        return os.fstat(file.fileno()).st_nlink > 0
    return True


def _json(line: str) -> Any:
    try:
        return json.loads(line)
    except (ValueError, RecursionError):
        return None


def _is_metrics(row: Any) -> bool:
    return isinstance(row, dict) and all(
        isinstance(value, float | int) for value in (row.get("epoch"), *row.values())
    )


def _reason(error: Exception) -> str:
    """What the system said. A library may have made another error of it, so contexts are looked at too."""
    cause: BaseException | None = error
    while cause and not (isinstance(cause, OSError) and cause.strerror):
        cause = cause.__context__
    return str(cause.strerror) if isinstance(cause, OSError) else first_line(error)


def _unsaved(path: Path, error: Exception) -> OSError:
    free = shutil.disk_usage(path.parent).free / 2**20
    return OSError(
        f"{path} could not be saved, with {free:,.0f} MB free on the disk ({_reason(error)}); "
        "what was there is kept"
    )
