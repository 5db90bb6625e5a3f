"""Tiny ImageNet: 110,000 colour photographs, 64x64 pixels, 200 classes."""

from v2m.data.named import DATASETS
from v2m.recipes.cifar import OTHER_FILES, augment_of, input_of
from v2m.recipes.recipe import NOT_MEASURED, Recipe
from v2m.tasks.classification.config import ClassificationConfig
from v2m.tasks.config import OptimizerConfig

CONFIG = ClassificationConfig(
    data="tiny-imagenet",
    model="v2m_lite_nano",
    epochs=10,
    batch_size=64,
    ema_decay=0.999,
    input=input_of(DATASETS["tiny-imagenet"], 64),
    augment=augment_of(DATASETS["tiny-imagenet"]),
    optimizer=OptimizerConfig(lr=2e-3),
)

RECIPES = (
    Recipe(
        name="tiny-imagenet",
        title="Train v2m_lite_nano on Tiny ImageNet.",
        config=CONFIG,
        images="Tiny ImageNet",
        commands=("v2m train --data tiny-imagenet",),
        details=OTHER_FILES.format("tiny-imagenet"),
        expected=NOT_MEASURED,
        source="our choice, not run by us",
        hardware="about 55 minutes on two cores of a CPU",
    ),
)
