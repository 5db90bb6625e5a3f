"""Image classification: one label per image."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from timm.task import TrainingTask
from torch import Tensor, nn

from v2m.data import ImageSpec, LabelledImages
from v2m.data.loading import Images
from v2m.system.errors import DataError, few
from v2m.tasks.classification.config import ClassificationConfig, InputConfig
from v2m.tasks.classification.data import (
    open_train_data,
    open_val_data,
    resolve_augment,
    resolve_image_spec,
)
from v2m.tasks.classification.head import build_model, load_model, save_model
from v2m.tasks.classification.loss import build_mixup, build_task
from v2m.tasks.classification.metrics import ClassificationResults
from v2m.tasks.hub import model_defaults, resolve_model_args
from v2m.tasks.task import Evaluator, Metric, SavedModel, Task

__all__ = ["Classification", "ClassificationEvaluator"]


class ClassificationEvaluator(Evaluator):
    """How classifiers are evaluated.

    Args:
        classes: Names of the classes.
        spec: The images.
    """

    def __init__(self, classes: list[str], spec: ImageSpec) -> None:
        self.classes, self.spec = classes, spec

    def open_data(self, source: str, data_dir: Path, *, allow_outside: bool = False) -> LabelledImages:
        """Validation images, labelled by their place in the classes."""
        return open_val_data(source, data_dir, self.spec, self.classes, allow_outside=allow_outside)

    def results(self, data: Images) -> ClassificationResults:
        """Where class scores go."""
        return ClassificationResults(self.classes)


class Classification(Task[ClassificationConfig]):
    """Image classification in one training run."""

    config_type = ClassificationConfig
    train_metric = Metric("top1", "accuracy")
    val_metrics = (Metric("top1", "accuracy"),)
    eval_parts = 4

    @classmethod
    def resolve(cls, config: ClassificationConfig) -> ClassificationConfig:
        """Fill in the images, their augmentation, and the model's arguments."""
        spec = resolve_image_spec(config.input, config.data, model_defaults(config.model))
        teacher = config.distill.teacher
        if teacher and Path(teacher).exists():
            teacher = str(Path(teacher).resolve())
        return replace(
            config,
            model_args=resolve_model_args(config.model, config.model_args, config.pretrained),
            distill=replace(config.distill, teacher=teacher),
            augment=resolve_augment(config.augment, config.data),
            input=InputConfig(spec.img_size, spec.in_chans, spec.mean, spec.std, spec.crop_pct),
        )

    def open_data(self, warn: Callable[[str], None]) -> None:
        """Open both splits, and build what mixes images."""
        config, folder = self.config, Path(self.config.data_dir)
        self._spec = resolve_image_spec(config.input, config.data, model_defaults(config.model))
        train_data = open_train_data(
            config.data, folder, self._spec, config.augment, allow_outside=config.allow_outside
        )
        self.classes = list(train_data.classes)
        self.evaluator = ClassificationEvaluator(self.classes, self._spec)
        val_data = self.evaluator.open_data(config.data, folder, allow_outside=config.allow_outside)
        self.train_data, self.val_data = train_data, val_data
        for line in (*train_data.warnings, *val_data.warnings):
            warn(line)
        if len(self.classes) < 2:
            raise DataError(f"data: {train_data.source} has the class {few(self.classes)} only, expected 2")
        empty, unmeasured = train_data.empty_classes(), self.val_data.empty_classes()
        if len(self.classes) - len(empty) < 2:
            raise DataError(f"data: {train_data.source} has images of less than two classes, expected 2")
        if empty:
            warn(f"{train_data.source} has no images of the classes {few(empty)}: they cannot be learned")
        if unmeasured:
            warn(
                f"{self.val_data.source} has no images of the classes {few(unmeasured)}: "
                "scores say nothing of them"
            )
        self._mixup = build_mixup(config.loss, config.augment, len(self.classes))
        self.needs_even_parts = self._mixup is not None
        self.repeats = config.augment.repeats

    def build_model(self, pretrained: str | None) -> nn.Module:
        """A timm model with a head for the classes."""
        return build_model(
            self.config.model, self.config.model_args, len(self.classes), self._spec, pretrained
        )

    def build_objective(self, model: nn.Module) -> TrainingTask:
        """Cross-entropy, with a teacher if there is one."""
        config = self.config
        return build_task(model, config.loss, config.distill, self._mixup, self._spec, self.classes)

    def mix(self, images: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Mixup or CutMix, if it is on."""
        return self._mixup(images, targets) if self._mixup else (images, targets)

    def count_right(self, output: Tensor, targets: Tensor) -> tuple[Tensor, int]:
        """Images whose best class is theirs, before mixing."""
        return (output.argmax(-1) == targets).sum(), len(targets)

    def save_model(self, model: nn.Module, folder: Path) -> None:
        """Write weights and configuration in timm's hub format."""
        save_model(model, folder, self.classes, self._spec)

    @classmethod
    def load_model(cls, path: Path) -> SavedModel:
        """Load a folder in timm's hub format, or the weights file in one."""
        model, name, classes, spec = load_model(path)
        return SavedModel(model, name, ClassificationEvaluator(classes, spec))
