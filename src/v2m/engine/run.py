"""A run folder: what is in it, and writing it so that nothing is ever half there."""

import json
import shlex
import shutil
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeAlias

import torch
import yaml
from torch import nn

from v2m.data import ImageSpec, first_line, replace_file
from v2m.engine.config import TrainConfig
from v2m.tasks.classification.head import WEIGHTS, save_model

Metrics: TypeAlias = dict[str, float]


class RunFolder:
    """Paths and writers of one training run.

    Every file is written beside its place and renamed into it, so an interrupted write leaves the old one.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)

    config = property(lambda self: self.path / "train.yaml", doc="The resolved configuration.")
    metrics = property(lambda self: self.path / "metrics.jsonl", doc="One line per epoch.")
    state = property(lambda self: self.path / "checkpoint.pt", doc="What resuming needs.")
    learning_curve = property(lambda self: self.path / "learning_curve.png", doc="Picture of the metrics.")
    confusion_matrix = property(lambda self: self.path / "confusion_matrix.png", doc="Picture.")
    refinement = property(lambda self: self.path / "refinement.png", doc="Picture of errors over sweeps.")
    predictions = property(lambda self: self.path / "predictions.png", doc="Picture of images and classes.")

    def create(self) -> None:
        """Make the folder.

        Raises:
            FileExistsError: it is there and is not empty.
        """
        if self.path.is_dir() and any(self.path.iterdir()):
            raise FileExistsError(
                f"output: {self.path} is not empty, choose another folder "
                f"(a run is continued with: v2m train --resume {shlex.quote(str(self.path))})"
            )
        self.path.mkdir(parents=True, exist_ok=True)

    def write_config(self, config: TrainConfig) -> None:
        """Write the configuration as YAML that ``v2m train --config`` takes."""
        plain = json.loads(json.dumps(asdict(config)))
        self._write(self.config, lambda path: path.write_text(yaml.safe_dump(plain, sort_keys=False)))

    def read_config(self) -> dict[str, Any]:
        """The configuration that was written."""
        return yaml.safe_load(self.config.read_text())

    def write_metrics(self, history: list[Metrics]) -> None:
        """Write one JSON line per epoch."""
        lines = "".join(json.dumps(row) + "\n" for row in history)
        self._write(self.metrics, lambda path: path.write_text(lines))

    def read_metrics(self) -> list[Metrics]:
        """The rows of ``write_metrics``; none where there is no file yet."""
        if not self.metrics.is_file():
            return []
        return [json.loads(line) for line in self.metrics.read_text().splitlines()]

    def write_state(self, state: dict[str, Any]) -> None:
        """Write what resuming needs: tensors and plain data."""
        self._write(self.state, lambda path: torch.save(state, path))

    def read_state(self) -> dict[str, Any]:
        """The state that was written last.

        Raises:
            FileNotFoundError: there is none.
            OSError: it cannot be read.
        """
        if not self.state.is_file():
            raise FileNotFoundError(
                f"resume: {self.path} has no {self.state.name}; nothing was saved there yet"
            )
        try:
            return torch.load(self.state, map_location="cpu", weights_only=True)
        except Exception as error:  # torch.load raises whatever a damaged file makes its readers raise
            raise OSError(f"resume: {self.state} cannot be read ({first_line(error)})") from None

    def write_model(self, model: nn.Module, classes: list[str], spec: ImageSpec) -> None:
        """Write the weights in timm's hub format."""
        try:
            save_model(model, self.path, classes, spec)
        except Exception as error:  # safetensors has its own error for a full disk
            raise _unsaved(self.path / WEIGHTS, error) from None

    def _write(self, path: Path, write: Callable[[Path], Any]) -> None:
        try:
            replace_file(path, write)
        except Exception as error:  # torch.save raises RuntimeError where the disk is full
            raise _unsaved(path, error) from None


def _unsaved(path: Path, error: Exception) -> OSError:
    free = shutil.disk_usage(path.parent).free / 2**20
    return OSError(
        f"{path} could not be saved, with {free:,.0f} MB free on the disk ({first_line(error)}); "
        "what was there is kept"
    )
