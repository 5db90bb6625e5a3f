"""Scenes of Fashion-MNIST garments, as ``v2m data scenes`` makes them: boxes, instance masks and labels.

A backbone is trained to classify single garments, then a detector or a segmenter starts from it.
"""

from dataclasses import dataclass, field
from typing import Any, ClassVar

from v2m.recipes.fashion_mnist import FashionMNISTConfig
from v2m.recipes.recipe import Recipe
from v2m.tasks.classification.config import InputConfig
from v2m.tasks.config import OptimizerConfig
from v2m.tasks.detection import config as detection
from v2m.tasks.segmentation import config as segmentation

SMALL = dict(embed_dim=[64, 128, 256, 512], depths=[1, 1, 3, 1], mlp_ratio=2.0)
"""A hierarchical V2M whose training step takes as long as that of ResNet-18 on a CPU."""


def small() -> dict[str, Any]:
    """``SMALL``, for a field of a configuration."""
    return dict(SMALL)


BACKBONE = "runs/garments"
"""Where the recipes look for the run of ``scenes-backbone``."""


@dataclass(frozen=True)
class ScenesBackboneConfig(FashionMNISTConfig):
    """Train a small hierarchical V2M on single garments for one epoch, as the backbone for scenes.

    Command: ``v2m train --recipe scenes-backbone --output runs/garments``.

    Expected: 86.94 % test accuracy.

    Hardware and time: 5 minutes on a core of a CPU.
    """

    expected: ClassVar[str] = "86.94 %"

    model: str = "v2m_hierarchical_small"
    model_args: dict[str, Any] = field(default_factory=small)
    epochs: int = 1
    ema_decay: float = 0.99
    input: InputConfig = field(default_factory=lambda: InputConfig(img_size=32, in_chans=3))
    optimizer: OptimizerConfig = field(default_factory=lambda: OptimizerConfig(lr=2e-3))


@dataclass(frozen=True)
class ScenesDetectionConfig(detection.DetectionConfig, Recipe):
    """Train a small Mask R-CNN over the backbone of ``scenes-backbone`` on scenes.

    Command: ``v2m data scenes runs/scenes``, then ``v2m train --recipe scenes-detection --data runs/scenes``;
    before that, ``scenes-backbone``, or ``--pretrained null`` to do without.

    Expected: 19.6 box AP, 18.6 mask AP (22.7 and 21.3 with seed 1).

    Hardware and time: 10 minutes on a core of a CPU.
    """

    images: ClassVar[str] = "scenes"
    expected: ClassVar[str] = "19.6 box AP, 18.6 mask AP"
    source: ClassVar[str] = "run by us"

    model: str = "v2m_hierarchical_small"
    model_args: dict[str, Any] = field(default_factory=small)
    pretrained: str | None = BACKBONE
    epochs: int = 4
    batch_size: int = 8
    input: detection.InputConfig = field(
        default_factory=lambda: detection.InputConfig(min_size=(96,), max_size=192, test_size=96)
    )
    head: detection.HeadConfig = field(
        default_factory=lambda: detection.HeadConfig(
            channels=32,
            box_channels=128,
            mask_layers=2,
            anchor_sizes=(8, 16, 32, 64, 128),
            rois=64,
            pre_nms_top_n=(100, 100),
            post_nms_top_n=(50, 50),
        )
    )
    optimizer: OptimizerConfig = field(default_factory=lambda: OptimizerConfig(lr=2e-3))


@dataclass(frozen=True)
class ScenesSegmentationConfig(segmentation.SegmentationConfig, Recipe):
    """Train UPerNet over the backbone of ``scenes-backbone`` on scenes.

    Command: ``v2m data scenes runs/scenes``, then ``v2m train --recipe scenes-segmentation --data
    runs/scenes``; before that, ``scenes-backbone``, or ``--pretrained null`` to do without.

    Expected: 27.8 mIoU (31.6 with seed 1).

    Hardware and time: 10 minutes on a core of a CPU.
    """

    images: ClassVar[str] = "scenes"
    expected: ClassVar[str] = "27.8 mIoU"
    source: ClassVar[str] = "run by us"

    model: str = "v2m_hierarchical_small"
    model_args: dict[str, Any] = field(default_factory=small)
    pretrained: str | None = BACKBONE
    epochs: int = 6
    batch_size: int = 4
    input: segmentation.InputConfig = field(default_factory=lambda: segmentation.InputConfig(crop_size=96))
    augment: segmentation.AugmentConfig = field(
        default_factory=lambda: segmentation.AugmentConfig(scale=(0.9, 1.1), photometric=0.0)
    )
    head: segmentation.HeadConfig = field(default_factory=lambda: segmentation.HeadConfig(channels=64))
    optimizer: OptimizerConfig = field(default_factory=lambda: OptimizerConfig(lr=2e-3))
