import torch
import torch.nn.functional as F

from v2m.data import AugmentConfig
from v2m.tasks.classification.config import LossConfig
from v2m.tasks.classification.loss import build_loss, build_mixup


def test_label_smoothing_equals_pytorchs():
    logits, targets = torch.randn(6, 4), torch.randint(0, 4, (6,))
    config = LossConfig(label_smoothing=0.2)
    assert build_mixup(config, AugmentConfig(), 4) is None
    expected = F.cross_entropy(logits, targets, label_smoothing=0.2)
    torch.testing.assert_close(build_loss(config, None)(logits, targets), expected)


def test_mixed_images_have_mixed_targets():
    images, targets = torch.randn(6, 1, 8, 8), torch.arange(6) % 3
    mixup = build_mixup(LossConfig(label_smoothing=0.0), AugmentConfig(mixup=0.8, cutmix=1.0), 3)
    mixed, soft = mixup(images.clone(), targets)
    assert not torch.equal(mixed, images)
    torch.testing.assert_close(soft.sum(1), torch.ones(6))
    logits = torch.randn(6, 3)
    expected = F.cross_entropy(logits, soft)
    torch.testing.assert_close(build_loss(LossConfig(), mixup)(logits, soft), expected)
