"""The side of a task that evaluates its models and applies them to image files."""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, ClassVar, Protocol, TypeAlias

import torch
from PIL import Image
from torch import nn

from v2m.data.images import read_batches
from v2m.data.loading import Batch, Images, OpenedImages, collate_tensors
from v2m.system.errors import DataError
from v2m.tasks.config import EvaluationOptions

Autocast: TypeAlias = Callable[[], AbstractContextManager[Any]]


class Scores(Protocol):
    """Scores of a model over a dataset; each task has its own kind."""

    @property
    def images(self) -> int:
        """Images that were scored."""

    @property
    def metrics(self) -> dict[str, float]:
        """The numbers for ``metrics.jsonl``, by names without ``val_``. All but losses are shares in 0..1."""


def is_finite(scores: Scores) -> bool:
    """Whether no score is infinite or NaN."""
    return all(map(math.isfinite, scores.metrics.values()))


class Results(ABC):
    """What a model predicts for a dataset, collected batch by batch. Every process fills its own."""

    @abstractmethod
    def add(self, model: nn.Module, batch: Batch, device: torch.device, autocast: Autocast) -> None:
        """Apply a model in evaluation mode to a batch of at least one image, without gradients."""

    @abstractmethod
    def state(self) -> Any:
        """The results that this process added, as a picklable object on the CPU."""

    @abstractmethod
    def merge(self, states: Sequence[Any]) -> None:
        """Replace the results of this process by those of all processes.

        Args:
            states: The ``state()`` of every process, in the same order everywhere.
        """

    @property
    @abstractmethod
    def images(self) -> int:
        """Number of images that were added."""

    @abstractmethod
    def scores(self) -> Scores:
        """The scores of what was added."""


class Evaluator(ABC):
    """How a model is evaluated: its classes, its images and its scores.

    A training run makes an evaluator for its model. Loading the saved model makes an equal one.

    Attributes:
        classes: Names of the classes.
        batch_size: Images in a batch, unless the user chooses another number.
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
        """This evaluator, changed by the options of ``v2m eval`` that only its task has."""
        return self

    @abstractmethod
    def results(self, data: Images) -> Results:
        """An empty collection for the results of these images."""

    @abstractmethod
    def prepare(self, image: Image.Image) -> Any:
        """What ``predict`` takes for an image that was read from a file."""

    @abstractmethod
    def predict(self, model: nn.Module, images: Sequence[Any], device: torch.device) -> Sequence[Any]:
        """The predictions of a model for prepared images, on the CPU.

        A prediction that cannot be used is replaced by a ``DataError`` that says why.

        Args:
            model: The model, on the device and in evaluation mode.
            images: What ``prepare`` made of the images.
            device: Where the model is.
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
        device: Where the model runs.
        batch_size: Number of files that are read before the model is applied to them.

    Yields:
        Each file in order, with its prepared image and the prediction, or with an error if the file cannot be
        read or the prediction cannot be used.
    """
    model.to(device).eval()
    for batch in read_batches(paths, batch_size, evaluator.prepare):
        images = [image for image in batch.values() if not isinstance(image, DataError)]
        # Predictions come for the readable files alone, in their order.
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
