"""Image classification in one training run."""

import os
from collections.abc import Callable
from dataclasses import replace
from functools import cached_property
from pathlib import Path

from timm.data import Mixup
from timm.task import TrainingTask
from torch import Tensor, nn

from v2m.data import ImageSpec, LabelledImages
from v2m.data.classes.division import SPLIT_FILE, Division, Kept, SideImages, read_kept
from v2m.system.errors import DataError, few
from v2m.tasks.classification.config import ClassificationConfig
from v2m.tasks.classification.data import image_spec, open_train_data, resolve_augment, resolve_input
from v2m.tasks.classification.evaluation import ClassificationEvaluator
from v2m.tasks.classification.loss import build_mixup, build_task
from v2m.tasks.classification.model import build
from v2m.tasks.classification.saved import load, save
from v2m.tasks.config import TrainConfig
from v2m.tasks.model_folder import ModelFolder
from v2m.tasks.names import CLASSIFICATION
from v2m.tasks.saved_model import SavedModel
from v2m.tasks.task import Metric, Task
from v2m.tasks.timm_models import model_defaults


class Classification(Task[ClassificationConfig]):
    """Image classification in one training run."""

    name = CLASSIFICATION
    least_classes = 2
    train_metric = Metric("top1", "accuracy")
    val_metrics = (Metric("top1", "accuracy"),)
    eval_parts = 4
    is_timm_format = True

    train_data: LabelledImages
    val_data: LabelledImages
    evaluator: ClassificationEvaluator
    _kept: Kept | None = None

    @classmethod
    def resolve_settings(cls, config: ClassificationConfig) -> ClassificationConfig:
        """Fill in the images and their augmentation."""
        teacher = config.distill.teacher
        if teacher and Path(teacher).exists():
            teacher = str(Path(teacher).resolve())
        config = replace(
            config,
            distill=replace(config.distill, teacher=teacher),
            augment=resolve_augment(config.augment, config.data),
            input=resolve_input(config.input, config.data, model_defaults(config.model)),
        )
        image_spec(config.input, model_defaults(config.model))  # an error now, not once the data are open
        return config

    @staticmethod
    def trained_models(config: TrainConfig) -> list[str]:
        """The trained models that a run reads, its teacher among them."""
        assert isinstance(config, ClassificationConfig)
        teacher = [config.distill.teacher] if config.distill.teacher else []
        return Task.trained_models(config) + teacher

    @cached_property
    def _spec(self) -> ImageSpec:
        return image_spec(self.config.input, model_defaults(self.config.model))

    @cached_property
    def _mixup(self) -> Mixup | None:
        return build_mixup(self.config.loss, self.config.augment, len(self.classes))

    def recall(self, folder: Path) -> None:
        """Take the division of the images that the run made when it began.

        Raises:
            ValueError: another one is asked for.
        """
        config, kept = self.config, read_kept(folder)
        if kept is None:
            return
        for name, given, made in (
            ("val_share", config.val_share, kept.val_share),
            ("split_seed", config.split_seed, kept.seed),
        ):
            if given not in (None, made):
                raise ValueError(
                    f"{name} is {given}, but the run has its images divided by {made} ({SPLIT_FILE}); "
                    "leave it out, or train anew"
                )
        # The data may have moved; the names of the images count from its folder.
        self._kept = replace(kept, data=os.path.realpath(config.data))

    def keep(self, folder: Path) -> None:
        """Write which images are on which side, where they were divided."""
        if self._kept:
            self._kept.write(folder)

    def open_train_data(self) -> LabelledImages:
        """Training images, augmented."""
        config = self.config
        share, seed = config.val_share, config.split_seed
        asked = Division(
            Division.val_share if share is None else share, Division.seed if seed is None else seed
        )
        return open_train_data(
            config.data,
            Path(config.data_dir),
            self._spec,
            config.augment,
            self._kept or asked,
            allow_outside=config.allow_outside,
        )

    def make_evaluator(self) -> ClassificationEvaluator:
        """How the classifier will be evaluated: on the images that are left to validate on."""
        if isinstance(self.train_data, SideImages):
            self._kept = self.train_data.kept
        return ClassificationEvaluator(self.classes, self._spec, self._kept)

    @property
    def notes(self) -> list[str]:
        """How the images were divided."""
        return self.train_data.notes

    def check_data(self, warn: Callable[[str], None]) -> None:
        """See that two classes have images, and name those that have none."""
        train_data, val_data = self.train_data, self.val_data
        asked = [name for name in ("val_share", "split_seed") if getattr(self.config, name) is not None]
        if asked and not self._kept:
            warn(f"{asked[0]} is not used: {self.config.data} has validation images of its own")
        unlearned, unmeasured = train_data.empty_classes(), val_data.empty_classes()
        if len(self.classes) - len(unlearned) < 2:
            raise DataError(f"data: {train_data.source} has images of less than two classes, expected 2")
        if unlearned:
            warn(f"{train_data.source} has no images of the classes {few(unlearned)}: they cannot be learned")
        if unmeasured:
            warn(
                f"{val_data.source} has no images of the classes {few(unmeasured)}: "
                "scores say nothing of them"
            )

    @property
    def image_size(self) -> str:
        """Height and width in pixels."""
        return "images of {}x{} pixels".format(*self._spec.img_size)

    @property
    def needs_even_parts(self) -> bool:
        """Whether images are mixed, which timm does in pairs."""
        return self._mixup is not None

    @property
    def repeats(self) -> int:
        """Times that an image comes in a row in training."""
        return self.config.augment.repeats

    def build(self, pretrained: str | None) -> nn.Module:
        """A timm model with a head for the classes."""
        return build(self.config, len(self.classes), pretrained)

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

    def save(self, model: nn.Module, path: Path) -> None:
        """Write weights and configuration in timm's hub format."""
        save(model, self.evaluator, path, self.config.data)

    @classmethod
    def load(cls, folder: ModelFolder) -> SavedModel[ClassificationEvaluator]:
        """The classifier in a folder in timm's hub format."""
        return load(folder)
