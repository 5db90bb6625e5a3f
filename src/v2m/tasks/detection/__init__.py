"""Detection: boxes around objects and their classes, and with a Mask R-CNN their masks."""

from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from timm.task import TrainingTask
from torch import nn

from v2m.data.coco.dataset import CocoImages
from v2m.data.loading import Images, collate_lists
from v2m.data.transforms import NamedStep
from v2m.system.errors import DataError, short, shown
from v2m.tasks import hub
from v2m.tasks.detection.config import DetectionConfig, HeadConfig, InputConfig
from v2m.tasks.detection.data import TrainTransform, image_size, keep_size, open_data, resolve_input
from v2m.tasks.detection.head import Detector
from v2m.tasks.detection.loss import DetectionObjective
from v2m.tasks.detection.metrics import DetectionResults, check_installed
from v2m.tasks.saved_config import LARGEST_RESIZED
from v2m.tasks.task import Evaluator, Metric, SavedModel, Task
from v2m.tasks.typed import brief, typed

__all__ = ["Detection", "DetectionEvaluator"]

NAME = "detection"
MOST_BOXES, MOST_PROPOSALS, MOST_DETECTIONS = 2**15, 2**13, 2**11
"""Most boxes of a level, and of an image, that a saved detector may ask for."""


class DetectionEvaluator(Evaluator):
    """How detectors are evaluated.

    Args:
        classes: Names of the classes.
        category_ids: COCO's ids of the classes, in the training data.
        has_masks: Whether the detector has masks.
        strict: Whether an annotation that cannot be used is an error.
    """

    batch_size = 8  # of 800 pixels and more
    collate = staticmethod(collate_lists)

    def __init__(
        self, classes: list[str], category_ids: list[int], has_masks: bool, strict: bool = False
    ) -> None:
        self.classes, self.category_ids = classes, category_ids
        self.has_masks, self.strict = has_masks, strict

    def open_data(self, source: str, data_dir: Path, *, allow_outside: bool = False) -> CocoImages:
        """Validation images of their own sizes, and masks of their objects."""
        data = open_data(
            source, "val", self.has_masks, self.classes, self.strict, allow_outside=allow_outside
        )
        data.transform = keep_size
        return data

    def results(self, data: Images) -> DetectionResults:
        """Where detections go."""
        assert isinstance(data, CocoImages)
        return DetectionResults(data, self.has_masks)


class Detection(Task[DetectionConfig]):
    """Detection in one training run."""

    config_type = DetectionConfig
    val_metrics = (Metric("mask_ap", "mask AP"), Metric("box_ap", "box AP"))
    collate = staticmethod(collate_lists)

    @classmethod
    def resolve(cls, config: DetectionConfig) -> DetectionConfig:
        """Fill in the images and the model's arguments."""
        check_installed()
        return replace(
            config,
            model_args=hub.resolve_model_args(config.model, config.model_args, config.pretrained),
            input=resolve_input(config.input, config.model),
        )

    def open_data(self, warn: Callable[[str], None]) -> None:
        """Open both splits."""
        config = self.config
        strict, allow_outside = config.input.strict, config.allow_outside
        train_data = open_data(
            config.data, "train", config.head.has_masks, strict=strict, allow_outside=allow_outside
        )
        train_data.transform = NamedStep("augment", TrainTransform(config.input, config.augment))
        self.train_data, self.classes = train_data, list(train_data.classes)
        self.evaluator = DetectionEvaluator(
            self.classes, list(train_data.category_ids), config.head.has_masks, strict
        )
        val_data = self.evaluator.open_data(config.data, Path(config.data_dir), allow_outside=allow_outside)
        self.val_data = val_data
        for line in (*train_data.warnings, *val_data.warnings):
            warn(line)

    def build_model(self, pretrained: str | None) -> Detector:
        """A detector of the classes."""
        config = self.config
        model = Detector(
            config.model,
            config.model_args,
            image_size(config.input, config.augment),
            len(self.classes),
            config.head,
            config.input,
            is_pretrained=pretrained == hub.TIMM,
        )
        if pretrained not in (None, hub.TIMM):
            model.start_from(pretrained)
        return model

    def build_objective(self, model: nn.Module) -> TrainingTask:
        """The detector's own losses."""
        assert isinstance(model, Detector)
        return DetectionObjective(model)

    def save_model(self, model: nn.Module, folder: Path) -> None:
        """Write weights and configuration."""
        assert isinstance(model, Detector)
        assert isinstance(self.evaluator, DetectionEvaluator)
        config = self.config
        size = image_size(config.input, config.augment)
        saved = dict(
            task=NAME,
            **model.saved_config(),
            num_classes=len(self.classes),
            label_names=self.classes,
            category_ids=self.evaluator.category_ids,
            pretrained_cfg=dict(input_size=(3, *size), mean=config.input.mean, std=config.input.std),
            input=dict(test_size=config.input.test_size, max_size=config.input.max_size),
            head=asdict(config.head),
        )
        hub.save_model(model, saved, folder)

    @classmethod
    def load_model(cls, path: Path) -> SavedModel:
        """Load a folder that ``save_model`` wrote, or the weights file in one."""
        check_installed()
        folder = hub.read_task_folder(path, NAME)
        saved = folder.saved
        try:
            head = _saved_head(folder)
            input = _saved_input(folder)
            category_ids = _category_ids(folder.config["category_ids"], len(saved.classes))
        except hub.LOAD_ERRORS as error:
            raise DataError(
                f"{shown(str(path))}: the model cannot be loaded ({hub.CONFIG}: {short(error)})"
            ) from None
        size = saved.images.input_size[1:]

        def build() -> Detector:
            return Detector(saved.architecture, saved.model_args, size, len(saved.classes), head, input)

        model = hub.load_state(folder, build).eval()
        evaluator = DetectionEvaluator(saved.classes, category_ids, head.has_masks)
        return SavedModel(model, saved.architecture, evaluator)


def _saved_head(folder: hub.Folder) -> HeadConfig:
    """The detector, in bounds of work and memory."""
    head = typed(HeadConfig, folder.config["head"], "head")
    for name, found, most in (
        ("pre_nms_top_n", head.pre_nms_top_n[1], MOST_BOXES),
        ("post_nms_top_n", head.post_nms_top_n[1], MOST_PROPOSALS),
        ("detections", head.detections, MOST_DETECTIONS),
    ):
        if found > most:
            raise ValueError(f"head.{name} is {found:,} in evaluation, expected at most {most:,}")
    return head


def _saved_input(folder: hub.Folder) -> InputConfig:
    """The images of a model."""
    images, sizes = folder.saved.images, folder.config["input"]
    given = dict(test_size=sizes["test_size"], max_size=sizes["max_size"], min_size=[sizes["test_size"]])
    input = typed(InputConfig, given, "input")
    if input.max_size > LARGEST_RESIZED:
        raise ValueError(f"input.max_size is {input.max_size}, expected at most {LARGEST_RESIZED}")
    return replace(input, mean=images.mean, std=images.std)


def _category_ids(values: Any, classes: int) -> list[int]:
    if not isinstance(values, list) or not all(type(value) is int for value in values):
        raise ValueError(f"category_ids is {brief(values)}, expected whole numbers")
    if len(values) != classes:
        raise ValueError(f"category_ids has {len(values)} numbers, expected {classes}")
    return values
