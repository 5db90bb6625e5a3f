"""ADE20K: 20,210 photographs in which every pixel has one of 150 classes, or none.

The settings are those that Swin's and VMamba's public code use for UperNet; the paper names no others.
"""

from dataclasses import dataclass, field
from typing import Any, ClassVar

from v2m.recipes.recipe import Recipe
from v2m.tasks.config import OptimizerConfig, ScheduleConfig
from v2m.tasks.segmentation.config import HeadConfig, InferenceConfig, SegmentationConfig

EPOCHS = 127
STEPS = EPOCHS * (20_210 // 16)
"""160,401 at batch 16."""


@dataclass(frozen=True)
class UPerNetConfig(SegmentationConfig, Recipe):
    """Train UperNet over V2M-S* on ADE20K for 160 thousand steps, with crops of 512 pixels.

    Command: ``torchrun --nproc_per_node 8 -m v2m train --recipe ade20k-upernet --data FOLDER --pretrained
    RUN``, for the folder that ADEChallengeData2016.zip unpacks to, and the folder of an ImageNet run of the
    same model (``imagenet-hierarchical-small``). Shorter sides are resized to 512 pixels first. 127 epochs
    are 160,401 steps. Scores with several scales (MS): ``v2m eval RUN --scales 0.5 0.75 1 1.25 1.5 1.75
    --flip true``.

    Expected: 48.2 mIoU with a single scale: the paper's gain over VMamba-T, added to that. Not run by us.

    Hardware and time: 8 GPUs, 2 images each; the time is not known.
    """

    images: ClassVar[str] = "ADE20K"
    expected: ClassVar[str] = "48.2 mIoU"
    source: ClassVar[str] = "paper, settings of Swin and VMamba, not run by us"

    model: str = "v2m_hierarchical_small"
    model_args: dict[str, Any] = field(default_factory=lambda: dict(drop_path_rate=0.2))
    epochs: int = EPOCHS
    batch_size: int = 16
    workers: int = 4
    ema_decay: float = 0.0
    head: HeadConfig = field(default_factory=lambda: HeadConfig(channels=512))
    inference: InferenceConfig = field(default_factory=lambda: InferenceConfig(short_side=512))
    optimizer: OptimizerConfig = field(
        default_factory=lambda: OptimizerConfig(lr=6e-5, weight_decay=0.01, clip_grad=None)
    )
    schedule: ScheduleConfig = field(
        default_factory=lambda: ScheduleConfig("poly", warmup=1500 / STEPS, warmup_lr=1e-8, min_lr=0.0)
    )
