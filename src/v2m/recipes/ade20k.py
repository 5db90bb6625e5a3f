"""ADE20K: 20,210 photographs in which every pixel has one of 150 classes, or none.

The settings are those that Swin's and VMamba's public code use for UperNet; the paper names no others.
"""

from v2m.recipes.recipe import EIGHT_GPUS, FOLDER, Recipe
from v2m.tasks.config import OptimizerConfig, ScheduleConfig
from v2m.tasks.segmentation.config import HeadConfig, InferenceConfig, SegmentationConfig

EPOCHS = 127
STEPS = EPOCHS * (20_210 // 16)
"""160,401 at batch 16. Swin and VMamba train for 160,000, which are no whole epochs."""

RECIPES = (
    Recipe(
        name="ade20k-upernet",
        title="Train UperNet over V2M-S* on ADE20K for 160 thousand steps, with crops of 512 pixels.",
        config=SegmentationConfig(
            FOLDER,
            model="v2m_hierarchical_small",
            model_args=dict(drop_path_rate=0.2),
            epochs=EPOCHS,
            batch_size=16,
            workers=4,
            ema_decay=0.0,
            head=HeadConfig(channels=512),
            inference=InferenceConfig(short_side=512),
            optimizer=OptimizerConfig(lr=6e-5, weight_decay=0.01, clip_grad=None),
            schedule=ScheduleConfig("poly", warmup=1500 / STEPS, warmup_lr=1e-8, min_lr=0.0),
        ),
        images="ADE20K",
        commands=(f"{EIGHT_GPUS} --recipe ade20k-upernet --data FOLDER --pretrained RUN",),
        details=(
            "FOLDER is what ADEChallengeData2016.zip unpacks to. RUN is the folder of an ImageNet run of the "
            "same model (imagenet-hierarchical-small). Shorter sides are resized to 512 pixels first. 127 "
            "epochs are 160,401 steps. v2m eval RUN --scales 0.5 0.75 1 1.25 1.5 1.75 --flip true gives the "
            "score with several scales (MS)."
        ),
        expected="48.2 mIoU",
        source="paper, settings of Swin and VMamba, not run by us",
        score_details="It is VMamba-T's score with a single scale, with the paper's gain over it added.",
        hardware="8 GPUs, 2 images each; the time is not known",
    ),
)
