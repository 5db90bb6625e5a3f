"""What a task is to whoever evaluates its models or applies them to image files."""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol, TypeAlias

import torch
from PIL import Image
from torch import nn

from v2m.data.images import read_batches
from v2m.data.loading import Batch, Images, OpenedImages, collate_tensors
from v2m.system.errors import DataError

Autocast: TypeAlias = Callable[[], AbstractContextManager[Any]]


class Scores(Protocol):
    """Scores of a model over a dataset; each task has its own kind."""

    @property
    def images(self) -> int:
        """Images that were scored."""

    @property
    def metrics(self) -> dict[str, float]:
        """The numbers for ``metrics.jsonl``, without ``val_``; what is not a loss is a share, 0..1."""


def is_finite(scores: Scores) -> bool:
    """Whether the weights gave numbers at all."""
    return all(map(math.isfinite, scores.metrics.values()))


class Results(ABC):
    """What a model makes of a dataset, batch by batch; every process fills its own."""

    @abstractmethod
    def add(self, model: nn.Module, batch: Batch, device: torch.device, autocast: Autocast) -> None:
        """Apply a model in evaluation mode to a batch of at least one image, without gradients."""

    @abstractmethod
    def state(self) -> Any:
        """What was added, as a picklable object on the CPU."""

    @abstractmethod
    def merge(self, states: Sequence[Any]) -> None:
        """Hold what all processes added, instead of what this one did: the same in every process."""

    @property
    @abstractmethod
    def images(self) -> int:
        """Images that were added."""

    @abstractmethod
    def scores(self) -> Scores:
        """The scores of what was added."""


@dataclass(frozen=True)
class EvaluationOptions:
    """Options of ``v2m eval`` that the models of one task have; a task with some has a subclass.

    Each field becomes an option: its name, its type, and as help its description in the docstring. None, the
    default, is for what the saved model says.
    """


class Evaluator(ABC):
    """How a model is evaluated: its classes, its images and its scores.

    A training run makes one for the model that it trains. A saved model comes with the same one.

    Attributes:
        classes: Names of the classes.
        batch_size: Images at once, where the user does not say.
    """

    classes: list[str]
    batch_size: ClassVar[int] = 64

    @staticmethod
    def collate(samples: Sequence[tuple[Any, Any]]) -> tuple[Any, Any]:
        """Images and targets of an evaluation batch, of (image, target) pairs."""
        return collate_tensors(samples)

    @abstractmethod
    def open_data(self, source: str, data_dir: Path, *, allow_outside: bool = False) -> OpenedImages:
        """Validation images, as models take them.

        Args:
            source: Where they are.
            data_dir: Where named datasets are kept.
            allow_outside: Whether files in a folder may name images outside of it.
        """

    def with_options(self, options: EvaluationOptions) -> "Evaluator":
        """This one with the options of ``v2m eval`` that its task has."""
        return self

    @abstractmethod
    def results(self, data: Images) -> Results:
        """Where results for these images go, empty."""

    @abstractmethod
    def prepare(self, image: Image.Image) -> Any:
        """What ``predict`` takes of an image file that was read."""

    @abstractmethod
    def predict(self, model: nn.Module, images: Sequence[Any], device: torch.device) -> Sequence[Any]:
        """What a model on the device makes of prepared images, on the CPU.

        A ``DataError`` stands in place of a prediction that cannot be used, and says why.
        """


def predict_files(
    model: nn.Module,
    evaluator: Evaluator,
    paths: Sequence[Path],
    device: torch.device,
    batch_size: int,
) -> Iterator[tuple[Path, tuple[Any, Any] | DataError]]:
    """Apply a model to image files.

    Args:
        model: The model.
        evaluator: How it is applied.
        paths: The files, each once.
        device: Where to.
        batch_size: Files that are read before the model is applied to them.

    Yields:
        Each file in order, with its prepared image and the prediction, or with the error where it cannot be
        read.
    """
    model.to(device).eval()
    for batch in read_batches(paths, batch_size, evaluator.prepare):
        images = [image for image in batch.values() if not isinstance(image, DataError)]
        found = iter(evaluator.predict(model, images, device) if images else ())
        for path, image in batch.items():
            if isinstance(image, DataError):
                yield path, image
                continue
            prediction = next(found)
            if isinstance(prediction, DataError):
                yield path, DataError(f"{path}: {prediction}")
            else:
                yield path, (image, prediction)
