"""COCO: 118,287 photographs with objects of 80 classes, for detection and instance segmentation.

The settings of the hierarchical models are those that Swin's and VMamba's public code use for Mask R-CNN; the
paper names no others. None of them has been run by us.
"""

from dataclasses import replace

from v2m.recipes.recipe import EIGHT_GPUS, FOLDER, Recipe
from v2m.tasks.config import OptimizerConfig, ScheduleConfig
from v2m.tasks.detection.config import AugmentConfig, DetectionConfig, InputConfig

STEPS = 118_287 // 16
"""Steps of an epoch at batch 16."""


def _schedule(epochs: int, drops: tuple[int, int]) -> ScheduleConfig:
    """500 steps of warm-up; the rate falls to a tenth after each of two epochs."""
    # A schedule counts in shares of the whole training, not in steps or epochs.
    milestones = tuple(epoch / epochs for epoch in drops)
    return ScheduleConfig("steps", warmup=500 / (epochs * STEPS), warmup_lr=1e-7, milestones=milestones)


# The 1x schedule, which the other two recipes start from.
MASK_RCNN = DetectionConfig(
    FOLDER,
    model="v2m_hierarchical_small",
    model_args=dict(drop_path_rate=0.2),
    epochs=12,
    batch_size=16,
    workers=4,
    ema_decay=0.0,
    optimizer=OptimizerConfig(lr=1e-4, weight_decay=0.05, clip_grad=None),
    schedule=_schedule(12, (8, 11)),
)

RECIPES = (
    Recipe(
        name="coco-mask-rcnn-1x",
        title="Train Mask R-CNN over V2M-S* on COCO for 12 epochs (the 1x schedule).",
        config=MASK_RCNN,
        images="COCO",
        commands=(f"{EIGHT_GPUS} --recipe coco-mask-rcnn-1x --data FOLDER --pretrained RUN",),
        details=(
            "FOLDER is COCO's, with annotations/, train2017/ and val2017/. RUN is the folder of an ImageNet "
            "run of the same model (imagenet-hierarchical-small). Shorter sides have 800 pixels."
        ),
        expected="47.6 box AP, 42.9 mask AP",
        source="paper, settings of Swin and VMamba, not run by us",
        score_details="These are VMamba-T's scores with the paper's gain over them added.",
        hardware="8 GPUs, 2 images each; the time is not known",
    ),
    Recipe(
        name="coco-mask-rcnn-3x",
        title=(
            "Train Mask R-CNN over V2M-S* on COCO for 36 epochs at several sizes (the 3x schedule, "
            "multi-scale)."
        ),
        config=replace(
            MASK_RCNN,
            epochs=36,
            input=InputConfig(min_size=tuple(range(480, 801, 32))),
            schedule=_schedule(36, (27, 33)),
        ),
        images="COCO",
        commands=(f"{EIGHT_GPUS} --recipe coco-mask-rcnn-3x --data FOLDER --pretrained RUN",),
        details=(
            "FOLDER and RUN are as for coco-mask-rcnn-1x. Shorter sides have 480 to 800 pixels in training."
        ),
        expected="unknown",
        source="settings of Swin and VMamba, not run by us",
        score_details="The paper does not have it.",
        hardware="8 GPUs, 2 images each; three times that of coco-mask-rcnn-1x",
    ),
    Recipe(
        name="coco-mask-rcnn-plain",
        title=(
            "Train Mask R-CNN over the plain V2M-T on COCO, through a simple feature pyramid, as ViTDet does."
        ),
        config=replace(
            MASK_RCNN,
            model="v2m_tiny_patch16_224",
            model_args=dict(drop_path_rate=0.1),
            epochs=50,
            input=InputConfig(max_size=1024),
            augment=AugmentConfig(jitter=(0.1, 2.0)),
            optimizer=OptimizerConfig(lr=1e-4, weight_decay=0.1, layer_decay=0.8, clip_grad=None),
            schedule=_schedule(50, (44, 48)),
        ),
        images="COCO",
        commands=(f"{EIGHT_GPUS} --recipe coco-mask-rcnn-plain --data FOLDER --pretrained RUN",),
        details=(
            "FOLDER is as for coco-mask-rcnn-1x, RUN the folder of a run of imagenet-tiny. Crops have 1024 "
            "pixels, with large-scale jitter from 0.1 to 2. Rates are smaller from block to block towards "
            "the image (layer decay)."
        ),
        expected="unknown",
        source="our choice, near ViTDet's, not run by us",
        hardware="50 epochs; 8 GPUs, 2 images each",
    ),
)
