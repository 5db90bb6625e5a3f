"""Training losses, and mixing of images: timm's."""

from timm.data import Mixup
from timm.loss import LabelSmoothingCrossEntropy, SoftTargetCrossEntropy
from torch import nn

from v2m.data import AugmentConfig
from v2m.tasks.classification.config import LossConfig


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
