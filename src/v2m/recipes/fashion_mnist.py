"""Fashion-MNIST: 60,000 gray images of garments, 28x28 pixels, 10 classes."""

from v2m.data.augment import AugmentConfig
from v2m.recipes.recipe import Recipe
from v2m.tasks.classification.config import ClassificationConfig
from v2m.tasks.config import OptimizerConfig

CONFIG = ClassificationConfig(
    data="fashion-mnist",
    model="v2m_micro",
    epochs=15,
    batch_size=64,
    ema_decay=0.999,
    augment=AugmentConfig(scale=(0.85, 1.0), ratio=(0.9, 1.1)),
    optimizer=OptimizerConfig(lr=3e-3),
)

RECIPES = (
    Recipe(
        name="fashion-mnist",
        title="Train v2m_micro on Fashion-MNIST.",
        config=CONFIG,
        images="Fashion-MNIST",
        commands=("v2m train --data fashion-mnist",),
        expected="92.15 % top-1",
        source="run by us",
        hardware="40 minutes on two cores of a CPU",
    ),
)
