"""Training losses, mixing of images, and learning from a teacher: timm's."""

import torch
import torch.nn.functional as F
from timm.data import Mixup
from timm.loss import LabelSmoothingCrossEntropy, SoftTargetCrossEntropy
from timm.task import (
    ClassificationTask,
    DistillationTeacher,
    FeatureDistillationTask,
    LogitDistillationTask,
    TrainingTask,
)
from torch import Tensor, nn

from v2m.data import AugmentConfig, ImageSpec
from v2m.tasks.classification.config import DistillConfig, LossConfig
from v2m.tasks.classification.model import load_teacher


def build_mixup(config: LossConfig, augment: AugmentConfig, num_classes: int) -> Mixup | None:
    """Mixup or CutMix of whole batches, with label smoothing; None where both are off."""
    if not augment.mixup and not augment.cutmix:
        return None
    return Mixup(
        mixup_alpha=augment.mixup,
        cutmix_alpha=augment.cutmix,
        label_smoothing=config.label_smoothing,
        num_classes=num_classes,
    )


def build_loss(config: LossConfig, mixup: Mixup | None) -> nn.Module:
    """Cross-entropy with soft targets if images are mixed, else with label smoothing."""
    return SoftTargetCrossEntropy() if mixup else LabelSmoothingCrossEntropy(config.label_smoothing)


def build_task(
    model: nn.Module,
    loss: LossConfig,
    distill: DistillConfig,
    mixup: Mixup | None,
    spec: ImageSpec,
    classes: list[str],
) -> TrainingTask:
    """What is minimised, as timm's task: called with images and targets, it gives ``loss`` and ``output``.

    The parameters to train are those of its ``trainable_module``: ``model``, and for a teacher's features
    also their projection. A teacher is in evaluation mode at all times, and has no gradients.

    Args:
        model: The model to train; it takes images of ``spec``.
        loss: Loss against the labels.
        distill: The teacher, if there is one.
        mixup: How images are mixed, which makes targets soft.
        spec: The images.
        classes: Names of the classes, which a teacher must have too.

    Raises:
        ValueError: the teacher cannot be used.
    """
    criterion = build_loss(loss, mixup)
    if distill.teacher is None:
        return ClassificationTask(model, criterion, verbose=False)
    teacher = _Teacher(load_teacher(distill.teacher, classes, spec)).requires_grad_(False)
    weights = dict(task_loss_weight=1 - distill.weight, distill_loss_weight=distill.weight)
    task: TrainingTask
    if distill.kind == "soft":
        task = LogitDistillationTask(
            model, teacher, criterion, temperature=distill.temperature, verbose=False, **weights
        )
    elif distill.kind == "hard":
        task = HardDistillationTask(model, teacher, criterion, verbose=False, **weights)
    else:
        task = FeatureDistillationTask(model, teacher, criterion, verbose=False, **weights)
    task.student_mean = torch.tensor(spec.mean).view(1, -1, 1, 1)  # timm takes the model's defaults
    task.student_std = torch.tensor(spec.std).view(1, -1, 1, 1)
    return task


class HardDistillationTask(LogitDistillationTask):
    """Cross-entropy with the teacher's best class, besides the loss against the labels.

    Hard distillation of DeiT (arXiv:2012.12877), for models without a token for it.
    """

    def forward(self, input: Tensor, target: Tensor) -> dict[str, Tensor]:
        """Both losses, their weighted sum and the model's output."""
        output = self.trainable_module(input)
        task_loss = self.criterion(output, target)
        with torch.no_grad():
            images = self.teacher.normalize_input(input, self.student_mean, self.student_std)
            best = self.teacher(images).argmax(-1)
        kd_loss = F.cross_entropy(output, best)
        loss = self.task_loss_weight * task_loss + self.distill_loss_weight * kd_loss
        return dict(loss=loss, output=output, task_loss=task_loss, kd_loss=kd_loss)


class _Teacher(DistillationTeacher):
    """timm's, with float32 results also under autocast."""

    def forward(self, input: Tensor, return_features: bool = False) -> Tensor:
        return super().forward(input, return_features).float()
