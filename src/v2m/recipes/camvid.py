"""CamVid in SegNet's split: 701 street scenes of 480x360 pixels, each pixel of one of 11 classes or none."""

from v2m.data.named import DATASETS
from v2m.recipes.cifar import OTHER_FILES
from v2m.recipes.recipe import Recipe
from v2m.tasks.config import OptimizerConfig
from v2m.tasks.segmentation.config import (
    AugmentConfig,
    HeadConfig,
    InputConfig,
    LossConfig,
    SegmentationConfig,
)

INFO = DATASETS["camvid"]
CONFIG = SegmentationConfig(
    "camvid",
    model="v2m_lite_nano",
    epochs=60,
    batch_size=8,
    # There are 45 steps in an epoch: the average must forget the first weights within a few epochs.
    ema_decay=0.99,
    # Pixels of the value 11 have no label.
    input=InputConfig(crop_size=(240, 320), mean=INFO.mean, std=INFO.std, label_map={11: 255}),
    augment=AugmentConfig(scale=(0.6, 1.5), hflip=INFO.hflip),
    # UPerNet takes three times as long; an auxiliary head would add a fifth.
    head=HeadConfig("fpn", channels=128),
    loss=LossConfig(auxiliary=0.0),
    optimizer=OptimizerConfig(lr=2e-3),
)

RECIPES = (
    Recipe(
        name="camvid",
        title="Train an FPN over v2m_lite_nano on CamVid, with crops of 240x320 pixels.",
        config=CONFIG,
        images="CamVid",
        commands=("v2m train --data camvid",),
        details=OTHER_FILES.format("camvid"),
        expected="58.56 % mIoU",
        source="run by us",
        score_details="On the 101 validation images; two minutes on an NVIDIA H200, with the same settings.",
        hardware="about 50 minutes on two cores of a CPU",
    ),
)
