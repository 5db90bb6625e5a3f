"""The side of a task that evaluates its models and applies them to image files."""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from itertools import islice
from pathlib import Path
from typing import Any, ClassVar, Protocol, TypeAlias, TypeVar

import torch
from PIL import Image
from torch import Tensor, nn

from v2m.data.inputs import ImageInput, as_image, input_name
from v2m.data.loading import Batch, Images, OpenedImages, collate_tensors
from v2m.data.transforms import apply
from v2m.system.errors import DataError
from v2m.tasks.config import EvaluationOptions
from v2m.tasks.predictions import Prediction

G = TypeVar("G", bound=ImageInput)

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
    def transform(self, image: Image.Image) -> Tensor:
        """An image as the model itself takes it ``[C, H, W]``."""

    @abstractmethod
    def result(self, prediction: Any) -> Prediction:
        """What people get for one of the predictions of ``predict``."""

    @abstractmethod
    def predict(self, model: nn.Module, images: Sequence[Any], device: torch.device) -> Sequence[Any]:
        """The predictions of a model for prepared images, on the CPU.

        A prediction that cannot be used is replaced by a ``DataError`` that says why.

        Args:
            model: The model, on the device and in evaluation mode.
            images: What ``prepare`` made of the images.
            device: Where the model is.
        """


def predict_images(
    model: nn.Module,
    evaluator: Evaluator,
    images: Iterable[G],
    device: torch.device,
    batch_size: int,
) -> Iterator[tuple[G, tuple[Any, Any] | DataError]]:
    """Apply a model to images.

    Args:
        model: The model.
        evaluator: How it is applied.
        images: The images, in whatever form.
        device: Where the model runs.
        batch_size: Number of images that are read before the model is applied to them.

    Yields:
        Each image in order, with its prepared image and the prediction, or with an error if the image cannot
        be read or the prediction cannot be used.
    """
    model.to(device).eval()
    left = iter(images)
    while batch := list(islice(left, batch_size)):
        prepared = [_prepared(evaluator, given) for given in batch]
        usable = [image for image in prepared if not isinstance(image, DataError)]
        # Predictions come for the readable images alone, in their order.
        found = iter(evaluator.predict(model, usable, device) if usable else ())
        for given, image in zip(batch, prepared, strict=True):
            if isinstance(image, DataError):
                yield given, image
                continue
            prediction = next(found)
            if isinstance(prediction, DataError):
                yield given, DataError(f"{input_name(given)}: {prediction}")
            else:
                yield given, (image, prediction)


def _prepared(evaluator: Evaluator, given: ImageInput) -> Any:
    try:
        return apply(evaluator.prepare, input_name(given), as_image(given))
    except DataError as error:
        return error
