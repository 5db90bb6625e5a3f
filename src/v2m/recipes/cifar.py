"""CIFAR-10 and CIFAR-100: 60,000 colour photographs each, 32x32 pixels, of 10 and of 100 classes."""

from dataclasses import replace

from v2m.data import AugmentConfig
from v2m.data.named import CIFAR10, CIFAR100, DatasetInfo
from v2m.recipes.recipe import FOLDER, NOT_MEASURED, Recipe
from v2m.tasks.classification.config import ClassificationConfig, InputConfig
from v2m.tasks.config import OptimizerConfig


def input_of(info: DatasetInfo, img_size: int) -> InputConfig:
    """The images of a named dataset, written out so that a folder of the same images is read alike."""
    return InputConfig(img_size, info.in_chans, info.mean, info.std, crop_pct=1.0)


def augment_of(info: DatasetInfo) -> AugmentConfig:
    """The augmentation that suits a named dataset, written out likewise."""
    return AugmentConfig(scale=info.crop_scale, hflip=info.hflip)


CONFIG = ClassificationConfig(
    data=FOLDER,
    model="v2m_lite_nano",
    epochs=18,
    batch_size=64,
    ema_decay=0.999,
    # Twice as large as they are, so that the last of the four stages still has 2x2 cells.
    input=input_of(CIFAR10, 64),
    augment=augment_of(CIFAR10),
    optimizer=OptimizerConfig(lr=2e-3),
)
HARDWARE = "about 50 minutes on two cores of a CPU"

RECIPES = (
    Recipe(
        name="cifar10",
        title="Train v2m_lite_nano on CIFAR-10, enlarged to 64x64 pixels.",
        config=CONFIG,
        images="CIFAR-10, 64x64 pixels",
        commands=("v2m train --recipe cifar10 --data FOLDER",),
        expected=NOT_MEASURED,
        source="our choice, not run by us",
        hardware=HARDWARE,
    ),
    Recipe(
        name="cifar100",
        title="Train v2m_lite_nano on CIFAR-100, enlarged to 64x64 pixels.",
        config=replace(CONFIG, input=input_of(CIFAR100, 64), augment=augment_of(CIFAR100)),
        images="CIFAR-100, 64x64 pixels",
        commands=("v2m train --recipe cifar100 --data FOLDER",),
        expected=NOT_MEASURED,
        source="our choice, not run by us",
        hardware=HARDWARE,
    ),
)
