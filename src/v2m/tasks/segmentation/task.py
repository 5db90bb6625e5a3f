"""Semantic segmentation in one training run."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from timm.task import TrainingTask
from torch import Tensor, nn

from v2m.data.masks.dataset import MaskedImages
from v2m.data.masks.learnable import check_labels
from v2m.tasks.model_folder import ModelFolder
from v2m.tasks.saved_model import SavedModel
from v2m.tasks.segmentation.config import SegmentationConfig
from v2m.tasks.segmentation.data import open_train_data, resolve_input
from v2m.tasks.segmentation.evaluation import SegmentationEvaluator
from v2m.tasks.segmentation.loss import SegmentationObjective
from v2m.tasks.segmentation.model import Segmenter, build, check_installed
from v2m.tasks.segmentation.saved import SEGMENTATION, load, save
from v2m.tasks.task import Metric, Task


class Segmentation(Task[SegmentationConfig]):
    """Semantic segmentation in one training run."""

    name = SEGMENTATION
    least_classes = 2
    train_metric = Metric("pixel_accuracy", "accuracy")
    val_metrics = (Metric("miou", "mIoU"), Metric("pixel_accuracy", "accuracy"))
    check_installed = staticmethod(check_installed)

    train_data: MaskedImages
    val_data: MaskedImages
    evaluator: SegmentationEvaluator

    @classmethod
    def resolve_settings(cls, config: SegmentationConfig) -> SegmentationConfig:
        """Fill in the images."""
        return replace(config, input=resolve_input(config.input, config.model))

    def open_train_data(self) -> MaskedImages:
        """Training images, augmented, and their labels."""
        config = self.config
        return open_train_data(
            config.data, Path(config.data_dir), config.input, config.augment, config.inference.short_side
        )

    def make_evaluator(self) -> SegmentationEvaluator:
        """How the model will be evaluated."""
        return SegmentationEvaluator(self.classes, self.config.input, self.config.inference)

    def check_data(self, warn: Callable[[str], None]) -> None:
        """Look at the labels of some masks of both splits."""
        check_labels(self.train_data, True, warn)
        check_labels(self.val_data, False, warn)

    @property
    def image_size(self) -> str:
        """Height and width of a crop in pixels."""
        return "crops of {}x{} pixels".format(*self.config.input.crop)

    def build(self, pretrained: str | None) -> Segmenter:
        """A backbone with a decoder for the classes."""
        return build(self.config, len(self.classes), pretrained)

    def build_objective(self, model: nn.Module) -> TrainingTask:
        """Cross-entropy of the labelled pixels."""
        assert isinstance(model, Segmenter)
        return SegmentationObjective(model, self.config.loss, self.config.input.ignore_index)

    def count_right(self, output: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Labelled pixels whose best class is theirs."""
        is_labelled = targets != self.config.input.ignore_index
        return ((output.argmax(1) == targets) & is_labelled).sum(), is_labelled.sum()

    def save(self, model: nn.Module, path: Path) -> None:
        """Write weights and configuration."""
        save(model, self.evaluator, path)

    @classmethod
    def load(cls, folder: ModelFolder) -> SavedModel[SegmentationEvaluator]:
        """The model in a folder that ``save`` wrote."""
        return load(folder)
