"""Detection in one training run."""

from dataclasses import replace
from pathlib import Path

from timm.task import TrainingTask
from torch import nn

from v2m.data.coco.dataset import CocoImages
from v2m.data.loading import collate_lists
from v2m.tasks.detection.config import DetectionConfig
from v2m.tasks.detection.data import open_train_data, resolve_input
from v2m.tasks.detection.evaluation import DetectionEvaluator
from v2m.tasks.detection.loss import DetectionObjective
from v2m.tasks.detection.metrics import check_installed
from v2m.tasks.detection.model import Detector, build
from v2m.tasks.detection.saved import DETECTION, load, save
from v2m.tasks.model_folder import ModelFolder
from v2m.tasks.saved_model import SavedModel
from v2m.tasks.task import Metric, Task


class Detection(Task[DetectionConfig]):
    """Detection in one training run."""

    name = DETECTION
    val_metrics = (Metric("mask_ap", "mask AP"), Metric("box_ap", "box AP"))
    collate = staticmethod(collate_lists)
    check_installed = staticmethod(check_installed)

    train_data: CocoImages
    val_data: CocoImages
    evaluator: DetectionEvaluator

    @classmethod
    def resolve_settings(cls, config: DetectionConfig) -> DetectionConfig:
        """Fill in the images."""
        return replace(config, input=resolve_input(config.input, config.model))

    def open_train_data(self) -> CocoImages:
        """Training images, augmented, and their objects."""
        config = self.config
        return open_train_data(
            config.data,
            config.head.has_masks,
            config.input,
            config.augment,
            allow_outside=config.allow_outside,
        )

    def make_evaluator(self) -> DetectionEvaluator:
        """How the detector will be evaluated."""
        category_ids = list(self.train_data.category_ids)
        return DetectionEvaluator(
            self.classes, category_ids, self.config.head.has_masks, self.config.input.strict
        )

    @property
    def image_size(self) -> str:
        """Least and most pixels of a side."""
        input = self.config.input
        return f"images of {min(input.min_size)} to {input.max_size} pixels a side"

    def build(self, pretrained: str | None) -> Detector:
        """A detector of the classes."""
        return build(self.config, len(self.classes), pretrained)

    def build_objective(self, model: nn.Module) -> TrainingTask:
        """The detector's own losses."""
        assert isinstance(model, Detector)
        return DetectionObjective(model)

    def save(self, model: nn.Module, path: Path) -> None:
        """Write weights and configuration."""
        save(model, self.evaluator, path)

    @classmethod
    def load(cls, folder: ModelFolder) -> SavedModel[DetectionEvaluator]:
        """The detector in a folder that ``save`` wrote."""
        return load(folder)
