"""COCO: 118,287 photographs with objects of 80 classes, for detection and instance segmentation.

The settings of the hierarchical models are those that Swin's and VMamba's public code use for Mask R-CNN; the
paper names no others. None of them has been run by us.
"""

from dataclasses import dataclass, field
from typing import Any, ClassVar

from v2m.recipes.recipe import Recipe
from v2m.tasks.config import OptimizerConfig, ScheduleConfig
from v2m.tasks.detection.config import AugmentConfig, DetectionConfig, InputConfig

STEPS = 118_287 // 16
"""Steps of an epoch at batch 16."""


def _schedule(epochs: int, drops: tuple[int, int]) -> ScheduleConfig:
    """500 steps of warm-up, and a tenth of the rate from each of two epochs on."""
    milestones = tuple(epoch / epochs for epoch in drops)
    return ScheduleConfig("steps", warmup=500 / (epochs * STEPS), warmup_lr=1e-7, milestones=milestones)


@dataclass(frozen=True)
class MaskRCNN1xConfig(DetectionConfig, Recipe):
    """Train Mask R-CNN over V2M-S* on COCO for 12 epochs (the 1x schedule).

    Command: ``torchrun --nproc_per_node 8 -m v2m train --recipe coco-mask-rcnn-1x --data FOLDER --pretrained
    RUN``, for COCO's folder with annotations/, train2017/ and val2017/, and the folder of an ImageNet run of
    the same model (``imagenet-hierarchical-small``). Shorter sides have 800 pixels.

    Expected: 47.6 box AP, 42.9 mask AP: the paper's gain over VMamba-T, added to that. Not run by us.

    Hardware and time: 8 GPUs, 2 images each; the time is not known.
    """

    images: ClassVar[str] = "COCO"
    expected: ClassVar[str] = "47.6 box AP, 42.9 mask AP"
    source: ClassVar[str] = "paper, settings of Swin and VMamba, not run by us"

    model: str = "v2m_hierarchical_small"
    model_args: dict[str, Any] = field(default_factory=lambda: dict(drop_path_rate=0.2))
    epochs: int = 12
    batch_size: int = 16
    workers: int = 4
    ema_decay: float = 0.0
    optimizer: OptimizerConfig = field(
        default_factory=lambda: OptimizerConfig(lr=1e-4, weight_decay=0.05, clip_grad=None)
    )
    schedule: ScheduleConfig = field(default_factory=lambda: _schedule(12, (8, 11)))


@dataclass(frozen=True)
class MaskRCNN3xConfig(MaskRCNN1xConfig):
    """Train Mask R-CNN over V2M-S* on COCO for 36 epochs at several sizes (the 3x schedule, multi-scale).

    Command: ``torchrun --nproc_per_node 8 -m v2m train --recipe coco-mask-rcnn-3x --data FOLDER --pretrained
    RUN``, as for ``coco-mask-rcnn-1x``. Shorter sides have 480 to 800 pixels in training.

    Expected: unknown; the paper does not have it.

    Hardware and time: 8 GPUs, 2 images each; three times that of ``coco-mask-rcnn-1x``.
    """

    expected: ClassVar[str] = "unknown"
    source: ClassVar[str] = "settings of Swin and VMamba, not run by us"

    epochs: int = 36
    input: InputConfig = field(default_factory=lambda: InputConfig(min_size=tuple(range(480, 801, 32))))
    schedule: ScheduleConfig = field(default_factory=lambda: _schedule(36, (27, 33)))


@dataclass(frozen=True)
class MaskRCNNPlainConfig(MaskRCNN1xConfig):
    """Train Mask R-CNN over the plain V2M-T on COCO, through a simple feature pyramid, as ViTDet does.

    Command: ``torchrun --nproc_per_node 8 -m v2m train --recipe coco-mask-rcnn-plain --data FOLDER
    --pretrained RUN``, with the folder of a run of ``imagenet-tiny``. Crops of 1024 pixels, large-scale
    jitter from 0.1 to 2, and rates that are smaller from block to block towards the image (layer decay).

    Expected: unknown, not run by us. The settings are our choice, near those of ViTDet.

    Hardware and time: 50 epochs; 8 GPUs, 2 images each.
    """

    expected: ClassVar[str] = "unknown"
    source: ClassVar[str] = "our choice, near ViTDet's, not run by us"

    model: str = "v2m_tiny_patch16_224"
    model_args: dict[str, Any] = field(default_factory=lambda: dict(drop_path_rate=0.1))
    epochs: int = 50
    input: InputConfig = field(default_factory=lambda: InputConfig(max_size=1024))
    augment: AugmentConfig = field(default_factory=lambda: AugmentConfig(jitter=(0.1, 2.0)))
    optimizer: OptimizerConfig = field(
        default_factory=lambda: OptimizerConfig(lr=1e-4, weight_decay=0.1, layer_decay=0.8, clip_grad=None)
    )
    schedule: ScheduleConfig = field(default_factory=lambda: _schedule(50, (44, 48)))
