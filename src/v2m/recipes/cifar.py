"""CIFAR-10 and CIFAR-100: 60,000 colour photographs each, 32x32 pixels, of 10 and of 100 classes."""

from v2m.data import AugmentConfig
from v2m.data.named import DATASETS, DatasetInfo
from v2m.recipes.recipe import NOT_MEASURED, Recipe
from v2m.tasks.classification.config import ClassificationConfig, InputConfig
from v2m.tasks.config import OptimizerConfig


def input_of(info: DatasetInfo, img_size: int) -> InputConfig:
    """The images of a named dataset, written out so that a folder of the same images is read alike."""
    return InputConfig(img_size, info.in_chans, info.mean, info.std, crop_pct=1.0)


def augment_of(info: DatasetInfo) -> AugmentConfig:
    """The augmentation that suits a named dataset, written out likewise."""
    return AugmentConfig(scale=info.crop_scale, hflip=info.hflip)


def config_of(name: str) -> ClassificationConfig:
    """The settings for one of the two."""
    return ClassificationConfig(
        data=name,
        model="v2m_lite_nano",
        epochs=18,
        batch_size=64,
        ema_decay=0.999,
        # Twice as large as they are, so that the last of the four stages still has 2x2 cells.
        input=input_of(DATASETS[name], 64),
        augment=augment_of(DATASETS[name]),
        optimizer=OptimizerConfig(lr=2e-3),
    )


HARDWARE = "about 50 minutes on two cores of a CPU"
OTHER_FILES = "--recipe {0} --data FOLDER trains alike on a folder of the same images."
"""What else to know of a recipe whose images come by name."""

RECIPES = (
    Recipe(
        name="cifar10",
        title="Train v2m_lite_nano on CIFAR-10, enlarged to 64x64 pixels.",
        config=config_of("cifar10"),
        images="CIFAR-10, 64x64 pixels",
        commands=("v2m train --data cifar10",),
        details=OTHER_FILES.format("cifar10"),
        expected="78.11 % top-1 after 8 of the 18 epochs",
        source="run by us, not to its end",
        score_details="Images saved again as JPEG; five minutes on an NVIDIA H200, with the same settings.",
        hardware=HARDWARE,
    ),
    Recipe(
        name="cifar100",
        title="Train v2m_lite_nano on CIFAR-100, enlarged to 64x64 pixels.",
        config=config_of("cifar100"),
        images="CIFAR-100, 64x64 pixels",
        commands=("v2m train --data cifar100",),
        details=OTHER_FILES.format("cifar100"),
        expected=NOT_MEASURED,
        source="our choice, not run by us",
        hardware=HARDWARE,
    ),
)
