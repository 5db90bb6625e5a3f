"""What a task is to the engine: its data, model, loss and scores."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Generic, NamedTuple, Protocol, TypeVar

from timm.task import TrainingTask
from torch import Tensor, nn

from v2m.data.loading import Images, OpenedImages, collate_tensors
from v2m.system.errors import DataError, few
from v2m.tasks.config import TrainConfig
from v2m.tasks.evaluation import EvaluationOptions, Evaluator
from v2m.tasks.model_folder import ModelFolder, resolve_model_args

C = TypeVar("C", bound=TrainConfig)
E = TypeVar("E", bound=Evaluator)


class Metric(NamedTuple):
    """A share that is measured: its key in ``metrics.jsonl``, less ``train_`` or ``val_``, and its label."""

    key: str
    label: str


class TrainImages(OpenedImages, Protocol):
    """Training images as a task opens them.

    Attributes:
        source: What they were read from, for messages.
        classes: Names of the classes.
    """

    source: str
    classes: list[str]


@dataclass(frozen=True)
class SavedModel(Generic[E]):
    """A model as it was saved.

    Attributes:
        model: The model, in evaluation mode.
        evaluator: How it is evaluated.
        folder: Where it was read from.
    """

    model: nn.Module
    evaluator: E
    folder: ModelFolder

    @property
    def name(self) -> str:
        """Timm's name of the model, or of its backbone."""
        return self.folder.saved.architecture


class Task(ABC, Generic[C]):
    """A task in one training run. Data are opened before anything is built.

    Attributes:
        config: The run, resolved.
        classes: Names of the classes.
        train_data: Training images, augmented.
        val_data: Validation images.
        evaluator: How the model is evaluated.
        name: What the task is called on the command line and in ``config.json``.
        config_type: Its kind of configuration.
        options_type: The options of ``v2m eval`` that its models have besides those of all tasks.
        least_classes: Classes that there must be for something to be learned.
        train_metric: What is counted as right in training, if anything; before images are mixed.
        val_metrics: What is told of an evaluation, as far as it is measured; the first one that is says which
            weights are the best.
        eval_parts: Images of an evaluation batch, as a multiple of those in a part of a training step.
            Evaluation keeps no gradients, so that more images may fit.
        is_timm_format: Whether timm can load what is saved (its hub format).
    """

    name: ClassVar[str]
    config_type: ClassVar[type[TrainConfig]]
    options_type: ClassVar[type[EvaluationOptions]] = EvaluationOptions
    least_classes: ClassVar[int] = 1
    train_metric: ClassVar[Metric | None] = None
    val_metrics: ClassVar[tuple[Metric, ...]]
    eval_parts: ClassVar[int] = 1
    is_timm_format: ClassVar[bool] = False

    classes: list[str]
    train_data: Images
    val_data: Images
    evaluator: Evaluator

    def __init__(self, config: C) -> None:
        self.config = config

    @staticmethod
    def check_installed() -> None:
        """See that the packages are there which this task needs, and no other.

        Raises:
            ValueError: one is not.
        """

    @classmethod
    def resolve(cls, config: C) -> C:
        """The configuration with nothing left open that the task alone knows.

        Raises:
            ValueError: a setting cannot be used, or a package is missing.
        """
        cls.check_installed()
        args = resolve_model_args(config.model, config.model_args, config.pretrained)
        return cls.resolve_settings(replace(config, model_args=args))

    @staticmethod
    def trained_models(config: TrainConfig) -> list[str]:
        """The trained models that a run reads: folders, or names of others."""
        return [config.pretrained] if config.pretrained else []

    @classmethod
    @abstractmethod
    def resolve_settings(cls, config: C) -> C:
        """The configuration with the task's own settings filled in.

        Raises:
            ValueError: one cannot be used.
        """

    def open_data(self, warn: Callable[[str], None]) -> None:
        """Open both splits, and set the attributes that depend on them.

        Args:
            warn: Called with a line for each thing that is odd about them.

        Raises:
            DataError: they cannot be used.
        """
        config = self.config
        train_data = self.open_train_data()
        self.train_data, self.classes = train_data, list(train_data.classes)
        if len(self.classes) < self.least_classes:
            raise DataError(
                f"data: {train_data.source} has the class {few(self.classes)} only, "
                f"expected {self.least_classes}"
            )
        # Validation images are opened as for any other model with these classes.
        self.evaluator = self.make_evaluator()
        val_data = self.evaluator.open_data(
            config.data, Path(config.data_dir), allow_outside=config.allow_outside
        )
        self.val_data = val_data
        for line in (*train_data.warnings, *val_data.warnings):
            warn(line)
        self.check_data(warn)

    @abstractmethod
    def open_train_data(self) -> TrainImages:
        """Training images, augmented.

        Raises:
            DataError: they cannot be used.
        """

    @abstractmethod
    def make_evaluator(self) -> Evaluator:
        """How the model will be evaluated; training images are open."""

    def check_data(self, warn: Callable[[str], None]) -> None:
        """See that both splits are good for training.

        Args:
            warn: Called with a line for each thing that is odd about them.

        Raises:
            DataError: they are not.
        """

    @property
    def needs_even_parts(self) -> bool:
        """Whether a part of a step must have an even number of images."""
        return False

    @property
    def repeats(self) -> int:
        """Times that an image comes in a row in training."""
        return 1

    @staticmethod
    def collate(samples: Sequence[tuple[Any, Any]]) -> tuple[Any, Any]:
        """Images and targets of a training batch, of (image, target) pairs."""
        return collate_tensors(samples)

    @abstractmethod
    def build(self, pretrained: str | None) -> nn.Module:
        """The model to train, with timm's ``set_grad_checkpointing``, ``group_matcher``, ``no_weight_decay``.

        Args:
            pretrained: Weights to start from: a folder with a model, or the weights file in one; ``timm`` for
                those that timm has; None for new ones.

        Raises:
            ValueError: the model cannot be built, or the weights cannot be had or do not fit.
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
    def save(self, model: nn.Module, path: Path) -> None:
        """Write weights and configuration into a folder, each file renamed into place when complete."""

    @classmethod
    @abstractmethod
    def load(cls, folder: ModelFolder) -> SavedModel[Any]:
        """The model that ``save`` wrote into a folder.

        Raises:
            DataError: it is for another task, or the weights do not fit.
            ValueError: a package is missing.
        """
