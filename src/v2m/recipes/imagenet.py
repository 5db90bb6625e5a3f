"""ImageNet-1K: 1.28 million photographs of 1,000 classes, at 224x224 pixels and at 384x384.

The settings of the plain models are those of the V2M paper's released code, those of the hierarchical ones of
VMamba's, on which they are built. None of them has been run by us.
"""

from dataclasses import replace

from v2m.data.augment import AugmentConfig
from v2m.recipes.recipe import EIGHT_GPUS, FOLDER, Recipe
from v2m.tasks.classification.config import ClassificationConfig, DistillConfig, InputConfig
from v2m.tasks.config import OptimizerConfig, ScheduleConfig

# Details that several recipes share.
RELEASED = (
    "The released code computes something else than the paper describes; "
    "--model_args.directions released has its function."
)
OPEN = "The paper leaves the settings of this model open, and its code does not have it."
RELEASED_TIME = "the released code used 8 GPUs, 64 images each, in float32; its time is not known"
WINDOWS_TIME = "8 GPUs, 64 images each; the time is not known"
VMAMBA_TIME = "VMamba's code uses 8 GPUs, 128 images each, in float16; the time is not known"

# RandAugment, erasing, and mixup or CutMix.
AUGMENT = AugmentConfig(
    color_jitter=0.3,
    auto_augment="rand-m9-mstd0.5-inc1",
    random_erasing=0.25,
    mixup=0.8,
    cutmix=1.0,
    repeats=3,
)

TINY = ClassificationConfig(
    data=FOLDER,
    model="v2m_tiny_patch16_224",
    epochs=300,
    batch_size=512,
    workers=8,
    ema_decay=0.99996,
    input=InputConfig(img_size=224, crop_pct=0.875),
    augment=AUGMENT,
    optimizer=OptimizerConfig(lr=5e-4, weight_decay=0.1, clip_grad=None),
    schedule=ScheduleConfig(warmup=5 / 300, warmup_lr=1e-6, min_lr=1e-5),
)
SMALL = replace(
    TINY,
    model="v2m_small_patch16_224",
    model_args=dict(drop_path_rate=0.05),
    optimizer=OptimizerConfig(lr=1e-3, weight_decay=0.05, clip_grad=None),
)
# VMamba's code jitters colours more than the released one, repeats no images, and clips gradients.
HIERARCHICAL_SMALL = replace(
    TINY,
    model="v2m_hierarchical_small",
    model_args=dict(drop_path_rate=0.2),
    batch_size=1024,
    ema_decay=0.9999,
    augment=replace(AUGMENT, color_jitter=0.4, repeats=1),
    optimizer=OptimizerConfig(lr=1e-3, weight_decay=0.05, clip_grad=5.0),
    schedule=ScheduleConfig(warmup=20 / 300, warmup_lr=1e-6, min_lr=1e-5),
)
# A trained model should change little: small learning rates, smaller towards the image, and no mixing.
FINE_TUNE = ClassificationConfig(
    data=FOLDER,
    model="v2m_tiny_patch16_224",
    model_args=dict(drop_path_rate=0.1),
    pretrained="timm",
    epochs=30,
    batch_size=512,
    workers=8,
    ema_decay=0.9999,
    input=InputConfig(img_size=384, crop_pct=1.0),
    augment=AugmentConfig(auto_augment="rand-m9-mstd0.5-inc1", random_erasing=0.25),
    optimizer=OptimizerConfig(lr=5e-5, weight_decay=1e-8, layer_decay=0.85),
    schedule=ScheduleConfig(warmup=0.0, min_lr=1e-6),
)

RECIPES = (
    Recipe(
        name="imagenet-tiny",
        title="Train V2M-T on ImageNet-1K from nothing, with the settings of the paper's released code.",
        config=TINY,
        images="ImageNet-1K",
        commands=(f"{EIGHT_GPUS} --recipe imagenet-tiny --data FOLDER",),
        details=(
            "FOLDER has train/<class>/ and val/<class>/. The batch of 512 images is that of all processes "
            "together."
        ),
        expected="76.2 % top-1",
        source="paper, not run by us",
        score_details=RELEASED,
        hardware=RELEASED_TIME,
    ),
    Recipe(
        name="imagenet-tiny-local",
        title="Train V2M-T with local windows on ImageNet-1K from nothing, with the settings of V2M-T.",
        config=replace(TINY, model="v2m_tiny_local"),
        images="ImageNet-1K",
        commands=(f"{EIGHT_GPUS} --recipe imagenet-tiny-local --data FOLDER",),
        expected="76.4 % top-1",
        source="paper, not run by us",
        score_details=(
            "The released code has no windows: that the settings are those of V2M-T is our reading."
        ),
        hardware=WINDOWS_TIME,
    ),
    Recipe(
        name="imagenet-small",
        title="Train V2M-S on ImageNet-1K from nothing, with the settings of the paper's released code.",
        config=SMALL,
        images="ImageNet-1K",
        commands=(f"{EIGHT_GPUS} --recipe imagenet-small --data FOLDER",),
        expected="80.5 % top-1",
        source="paper, not run by us",
        score_details=RELEASED,
        hardware=RELEASED_TIME,
    ),
    Recipe(
        name="imagenet-small-local",
        title="Train V2M-S with local windows on ImageNet-1K from nothing, with the settings of V2M-S.",
        config=replace(SMALL, model="v2m_small_local"),
        images="ImageNet-1K",
        commands=(f"{EIGHT_GPUS} --recipe imagenet-small-local --data FOLDER",),
        expected="81.3 % top-1",
        source="paper, not run by us",
        score_details=(
            "The released code has no windows: that the settings are those of V2M-S is our reading."
        ),
        hardware=WINDOWS_TIME,
    ),
    Recipe(
        name="imagenet-hierarchical-small",
        title="Train V2M-S* on ImageNet-1K from nothing, with the settings of VMamba's public code.",
        config=HIERARCHICAL_SMALL,
        images="ImageNet-1K",
        commands=(f"{EIGHT_GPUS} --recipe imagenet-hierarchical-small --data FOLDER",),
        details=f"{OPEN} The settings are those of VMamba-T's configuration: Swin's, but for the drop path.",
        expected="82.9 % top-1",
        source="paper, settings of VMamba, not run by us",
        hardware=VMAMBA_TIME,
    ),
    Recipe(
        name="imagenet-hierarchical-base",
        title="Train V2M-B* on ImageNet-1K from nothing, with the settings of VMamba's public code.",
        config=replace(
            HIERARCHICAL_SMALL, model="v2m_hierarchical_base", model_args=dict(drop_path_rate=0.3)
        ),
        images="ImageNet-1K",
        commands=(f"{EIGHT_GPUS} --recipe imagenet-hierarchical-base --data FOLDER",),
        details=f"{OPEN} The settings are those of VMamba-S's configuration.",
        expected="83.8 % top-1",
        source="paper, settings of VMamba, not run by us",
        hardware=VMAMBA_TIME,
    ),
    Recipe(
        name="imagenet-distill",
        title="Train V2M-T on ImageNet-1K with a convolutional teacher, as the released code can.",
        config=replace(TINY, distill=DistillConfig(teacher="regnety_160.deit_in1k", kind="hard", weight=0.5)),
        images="ImageNet-1K",
        commands=(f"{EIGHT_GPUS} --recipe imagenet-distill --data FOLDER",),
        details=(
            "The teacher is DeiT's, RegNetY-16GF, whose weights timm downloads (334 MB). --distill.kind soft "
            "learns its probabilities instead of its best class."
        ),
        expected="unknown",
        source="option of the released code, not run by us",
        score_details="The paper has not run it either.",
        hardware="that of imagenet-tiny, and a forward pass of the teacher (16 GFLOPs) per image",
    ),
    Recipe(
        name="finetune-384",
        title="Fine-tune a trained model at 384x384 pixels, on its own classes or on others.",
        config=FINE_TUNE,
        images="any folder",
        commands=("v2m train --recipe finetune-384 --data FOLDER --model MODEL --pretrained RUN",),
        details=(
            "RUN is the folder of a run of MODEL, or timm for timm's weights of it, which are also the "
            "default. Position embeddings are resized, and the head is new where the number of classes "
            "differs. Learning rates are small, and smaller from block to block towards the images (layer "
            "decay). Images are not mixed."
        ),
        expected="unknown",
        source="our choice, not run by us",
        score_details="The settings are near those of ConvNeXt's fine-tuning.",
        hardware="30 epochs of images with three times the tokens; a GPU",
    ),
)
