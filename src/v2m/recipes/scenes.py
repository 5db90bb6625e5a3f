"""Scenes of Fashion-MNIST garments, as ``v2m data scenes`` makes them: boxes, instance masks and labels.

A backbone is trained to classify single garments, then a detector or a segmenter starts from it.
"""

from dataclasses import replace
from typing import Any

from v2m.recipes import fashion_mnist
from v2m.recipes.recipe import FOLDER, Recipe
from v2m.tasks.classification.config import InputConfig
from v2m.tasks.config import OptimizerConfig
from v2m.tasks.detection import config as detection
from v2m.tasks.segmentation import config as segmentation

SMALL_STAGES: dict[str, Any] = dict(embed_dim=[64, 128, 256, 512], depths=[1, 1, 3, 1], mlp_ratio=2.0)
"""A hierarchical V2M whose training step takes as long as that of ResNet-18 on a CPU."""
SMALL_MODEL: dict[str, Any] = dict(
    model="v2m_hierarchical_small", model_args=SMALL_STAGES, optimizer=OptimizerConfig(lr=2e-3)
)
"""What all three recipes train, and how fast."""
BACKBONE = "runs/garments"
"""Where the recipes look for the run of ``scenes-backbone``."""

TRAIN_BACKBONE = f"v2m train --recipe scenes-backbone --output {BACKBONE}"
MAKE_SCENES = "v2m data scenes runs/scenes"
WITHOUT_BACKBONE = "With --pretrained null, the run of scenes-backbone is not needed."

CLASSIFICATION = replace(
    fashion_mnist.CONFIG,
    **SMALL_MODEL,
    epochs=1,
    ema_decay=0.99,
    # Colour, as the scenes have it, and a size that the strides of all four stages divide.
    input=InputConfig(img_size=32, in_chans=3),
)
DETECTION = detection.DetectionConfig(
    FOLDER,
    **SMALL_MODEL,
    pretrained=BACKBONE,
    epochs=4,
    batch_size=8,
    input=detection.InputConfig(min_size=(96,), max_size=192, test_size=96),
    # Scenes are small, and so are the garments in them: small anchors, and few proposals.
    head=detection.HeadConfig(
        channels=32,
        box_channels=128,
        mask_layers=2,
        anchor_sizes=(8, 16, 32, 64, 128),
        rois=64,
        pre_nms_top_n=(100, 100),
        post_nms_top_n=(50, 50),
    ),
)
SEGMENTATION = segmentation.SegmentationConfig(
    FOLDER,
    **SMALL_MODEL,
    pretrained=BACKBONE,
    epochs=6,
    batch_size=4,
    input=segmentation.InputConfig(crop_size=96),
    augment=segmentation.AugmentConfig(scale=(0.9, 1.1), photometric=0.0),
    head=segmentation.HeadConfig(channels=64),
)

RECIPES = (
    Recipe(
        name="scenes-backbone",
        title="Train a small hierarchical V2M on single garments for one epoch, as the backbone for scenes.",
        config=CLASSIFICATION,
        images="Fashion-MNIST, 32x32 pixels",
        commands=(TRAIN_BACKBONE,),
        expected="86.94 % top-1",
        source="run by us",
        hardware="5 minutes on a core of a CPU",
    ),
    Recipe(
        name="scenes-detection",
        title="Train a small Mask R-CNN over the backbone of scenes-backbone on scenes.",
        config=DETECTION,
        images="scenes",
        commands=(TRAIN_BACKBONE, MAKE_SCENES, "v2m train --recipe scenes-detection --data runs/scenes"),
        details=WITHOUT_BACKBONE,
        expected="19.6 box AP, 18.6 mask AP",
        source="run by us",
        score_details="With seed 1 they are 22.7 and 21.3.",
        hardware="10 minutes on a core of a CPU",
    ),
    Recipe(
        name="scenes-segmentation",
        title="Train UPerNet over the backbone of scenes-backbone on scenes.",
        config=SEGMENTATION,
        images="scenes",
        commands=(TRAIN_BACKBONE, MAKE_SCENES, "v2m train --recipe scenes-segmentation --data runs/scenes"),
        details=WITHOUT_BACKBONE,
        expected="27.8 mIoU",
        source="run by us",
        score_details="With seed 1 it is 31.6.",
        hardware="10 minutes on a core of a CPU",
    ),
)
