"""What a task is to the engine: its data, model, loss and scores."""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, ClassVar, Generic, NamedTuple, Protocol, TypeAlias, TypeVar

import torch
from timm.task import TrainingTask
from torch import Tensor, nn

from v2m.data.loading import Batch, Images, OpenedImages, collate_tensors
from v2m.tasks.config import TrainConfig

Autocast: TypeAlias = Callable[[], AbstractContextManager[Any]]

C = TypeVar("C", bound=TrainConfig)


class Metric(NamedTuple):
    """A share in ``metrics.jsonl``: its name there without ``train_`` or ``val_``, and one for people."""

    key: str
    label: str


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


class Evaluator(ABC):
    """How models of these classes and images are evaluated: known of a run and of a saved model alike.

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

    def with_options(self, options: dict[str, Any]) -> "Evaluator":
        """This one with other options of ``v2m eval``.

        Raises:
            ValueError: the task has no such option.
        """
        if options:
            raise ValueError(f"{next(iter(options))}: models for segmentation alone have this option")
        return self

    @abstractmethod
    def results(self, data: Images) -> Results:
        """Where results for these images go, empty."""


class SavedModel(NamedTuple):
    """A model as it was saved: in evaluation mode, with its timm name, and how it is evaluated."""

    model: nn.Module
    name: str
    evaluator: Evaluator


class Task(ABC, Generic[C]):
    """A task in one training run. Data are opened before anything is built.

    Attributes:
        config: The run, resolved.
        classes: Names of the classes.
        train_data: Training images, augmented.
        val_data: Validation images.
        evaluator: How the model is evaluated.
        needs_even_parts: Whether a part of a step must have an even number of images.
        repeats: Times that an image comes in a row in training.
        config_type: Its kind of configuration.
        train_metric: What is counted as right in training, if anything; before images are mixed.
        val_metrics: What is told of an evaluation, as far as it is measured; the first one that is says which
            weights are the best.
        eval_parts: How many times as many images an evaluation batch has as a part of a training step.
    """

    config_type: ClassVar[type[TrainConfig]]
    train_metric: ClassVar[Metric | None] = None
    val_metrics: ClassVar[tuple[Metric, ...]]
    eval_parts: ClassVar[int] = 1

    classes: list[str]
    train_data: Images
    val_data: Images
    evaluator: Evaluator
    needs_even_parts: bool = False
    repeats: int = 1

    def __init__(self, config: C) -> None:
        self.config = config

    @classmethod
    @abstractmethod
    def resolve(cls, config: C) -> C:
        """The configuration with nothing left open that the task alone knows.

        Raises:
            ValueError: a setting cannot be used.
        """

    @abstractmethod
    def open_data(self, warn: Callable[[str], None]) -> None:
        """Open both splits, and set the attributes that depend on them.

        Args:
            warn: Called with a line for each thing that is odd about them.

        Raises:
            DataError: they cannot be used.
        """

    @staticmethod
    def collate(samples: Sequence[tuple[Any, Any]]) -> tuple[Any, Any]:
        """Images and targets of a training batch, of (image, target) pairs."""
        return collate_tensors(samples)

    @abstractmethod
    def build_model(self, pretrained: str | None) -> nn.Module:
        """The model to train, new or from trained weights.

        Its ``set_grad_checkpointing``, ``group_matcher`` and ``no_weight_decay`` are those of timm's models.
        """

    @abstractmethod
    def build_objective(self, model: nn.Module) -> TrainingTask:
        """What is minimised; called with images and targets, it gives ``loss`` and ``output``."""

    def mix(self, images: Any, targets: Any) -> tuple[Any, Any]:
        """Images and targets of a batch (on the device), mixed with each other."""
        return images, targets

    def count_right(self, output: Any, targets: Any) -> tuple[Tensor | int, Tensor | int]:
        """How much of a training batch is right, and of how much, in the unit of ``train_metric``."""
        return 0, 0

    @abstractmethod
    def save_model(self, model: nn.Module, folder: Path) -> None:
        """Write weights and configuration, each file renamed into place when complete."""

    @classmethod
    @abstractmethod
    def load_model(cls, path: Path) -> SavedModel:
        """Load a folder that ``save_model`` wrote, or the weights file in one.

        Raises:
            DataError: the folder is missing or is no such model, or its weights do not fit.
        """
