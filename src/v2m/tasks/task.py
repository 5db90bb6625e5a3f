"""What a task is to the engine: its data, model, loss and scores."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, Generic, NamedTuple, Protocol, TypeVar

from timm.task import TrainingTask
from torch import Tensor, nn

from v2m.data.loading import Images, OpenedImages, collate_tensors
from v2m.system.errors import DataError, few
from v2m.tasks.config import TrainConfig
from v2m.tasks.evaluation import Evaluator
from v2m.tasks.model_folder import ModelFolder, resolve_model_args
from v2m.tasks.saved_model import SavedModel

C = TypeVar("C", bound=TrainConfig)


class Metric(NamedTuple):
    """A score that is a share.

    Attributes:
        key: Its key in ``metrics.jsonl``, without ``train_`` or ``val_``.
        label: Its name for people.
    """

    key: str
    label: str


class TrainImages(OpenedImages, Protocol):
    """Training images as a task opens them.

    Attributes:
        source: The folder or dataset, for messages.
        classes: Names of the classes.
    """

    source: str
    classes: list[str]


class Task(ABC, Generic[C]):
    """A task in one training run.

    The engine calls ``resolve``, ``open_data`` and ``build`` in this order, since the classes of the data
    decide the head of the model.

    Attributes:
        config: The resolved configuration of the run.
        classes: Names of the classes.
        train_data: Training images, augmented.
        val_data: Validation images.
        evaluator: How the model is evaluated.
        name: What the task is called on the command line and in ``config.json``.
        least_classes: The least number of classes that can be learned.
        train_metric: The score of training batches, by ``count_right``; None for tasks without one.
        val_metrics: The scores that are shown after an evaluation. Some may not be measured, such as those of
            masks. The first one that is measured decides which weights are the best.
        eval_parts: Size of an evaluation batch, in parts of a training step. More than one may fit, since
            evaluation keeps nothing for gradients.
        is_timm_format: Whether timm can load what is saved (its hub format).
    """

    name: ClassVar[str]
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
        """Check that the optional packages that only this task needs are installed.

        Raises:
            ValueError: one is missing.
        """

    @classmethod
    def resolve(cls, config: C) -> C:
        """The configuration with every setting filled in that is known before the data are opened.

        Raises:
            ValueError: a setting cannot be used, or a package is missing.
        """
        cls.check_installed()
        args = resolve_model_args(config.model, config.model_args, config.pretrained)
        return cls.resolve_settings(replace(config, model_args=args))

    @staticmethod
    def trained_models(config: TrainConfig) -> list[str]:
        """The trained models that a run reads: folders, or names of timm's models."""
        return [config.pretrained] if config.pretrained else []

    @classmethod
    @abstractmethod
    def resolve_settings(cls, config: C) -> C:
        """The configuration with the settings filled in that only this task has.

        Raises:
            ValueError: a setting cannot be used.
        """

    def open_data(self, warn: Callable[[str], None]) -> None:
        """Open both splits, and set the attributes that depend on them.

        Args:
            warn: Called with one line for each peculiarity of the images.

        Raises:
            DataError: the images cannot be used.
        """
        config = self.config
        train_data = self.open_train_data()
        self.train_data, self.classes = train_data, list(train_data.classes)
        if len(self.classes) < self.least_classes:
            raise DataError(
                f"data: {train_data.source} has the class {few(self.classes)} only, "
                f"expected {self.least_classes}"
            )
        # The evaluator opens the validation images, by the same code as v2m eval does for a saved model.
        self.evaluator = self.make_evaluator()
        val_data = self.evaluator.open_data(
            config.data, Path(config.data_dir), allow_outside=config.allow_outside
        )
        self.val_data = val_data
        for line in (*train_data.warnings, *val_data.warnings):
            warn(line)
        self.check_data(warn)

    def recall(self, folder: Path) -> None:
        """Read what ``keep`` wrote into the folder of a run, which goes on. It comes before ``open_data``.

        Raises:
            ValueError: it does not go with the configuration.
        """

    def keep(self, folder: Path) -> None:
        """Write what else the run should know of its data into its folder."""

    @property
    def notes(self) -> list[str]:
        """A line for each thing to know of the data that is not odd."""
        return []

    @abstractmethod
    def open_train_data(self) -> TrainImages:
        """Training images, augmented.

        Raises:
            DataError: the images cannot be used.
        """

    @abstractmethod
    def make_evaluator(self) -> Evaluator:
        """The evaluator of the model. It is made once the training images are open."""

    def check_data(self, warn: Callable[[str], None]) -> None:
        """Check that the images of both splits are fit for training.

        Args:
            warn: Called with one line for each peculiarity of the images.

        Raises:
            DataError: a split is not fit for training.
        """

    @property
    @abstractmethod
    def image_size(self) -> str:
        """The size of the images that the model is trained on, in words."""

    @property
    def needs_even_parts(self) -> bool:
        """Whether a part of a step must have an even number of images."""
        return False

    @property
    def repeats(self) -> int:
        """How many times in a row each image comes in training, each time with another augmentation."""
        return 1

    @staticmethod
    def collate(samples: Sequence[tuple[Any, Any]]) -> tuple[Any, Any]:
        """Images and targets of a training batch, of (image, target) pairs."""
        return collate_tensors(samples)

    @abstractmethod
    def build(self, pretrained: str | None) -> nn.Module:
        """The model to train.

        As timm's models, it has ``set_grad_checkpointing``, ``group_matcher`` and ``no_weight_decay``.

        Args:
            pretrained: The weights to start from: a folder with a model, or the weights file in one; ``timm``
                for those that timm has; None for a new initialisation.

        Raises:
            ValueError: the model cannot be built, or the weights cannot be loaded or do not fit.
        """

    @abstractmethod
    def build_objective(self, model: nn.Module) -> TrainingTask:
        """The objective to minimise. Called with images and targets, it gives ``loss`` and ``output``."""

    def mix(self, images: Any, targets: Any) -> tuple[Any, Any]:
        """Images and targets of a batch (on the device), mixed with each other."""
        return images, targets

    def count_right(self, output: Any, targets: Any) -> tuple[Tensor | int, Tensor | int]:
        """How many predictions of a training batch are right, and how many there are, for ``train_metric``.

        Args:
            output: The ``output`` of the objective.
            targets: The targets, before images are mixed.
        """
        return 0, 0

    @abstractmethod
    def save(self, model: nn.Module, path: Path) -> None:
        """Write weights and configuration into a folder. Each file is renamed into place when complete."""

    @classmethod
    @abstractmethod
    def load(cls, folder: ModelFolder) -> SavedModel[Any]:
        """The model that ``save`` wrote into a folder.

        Raises:
            DataError: the model is for another task, or cannot be loaded.
            ValueError: a package is missing.
        """
