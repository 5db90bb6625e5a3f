"""Fashion-MNIST: 60,000 gray images of garments, 28x28 pixels, 10 classes."""

from dataclasses import dataclass, field
from typing import ClassVar

from v2m.data import AugmentConfig
from v2m.recipes.recipe import Recipe
from v2m.tasks.classification.config import ClassificationConfig
from v2m.tasks.config import OptimizerConfig


@dataclass(frozen=True)
class FashionMNISTConfig(ClassificationConfig, Recipe):
    """Train ``v2m_micro`` on Fashion-MNIST.

    Command: ``v2m train --data fashion-mnist``.

    Expected: 92.15 % test accuracy.

    Hardware and time: 40 minutes on two cores.
    """

    images: ClassVar[str] = "Fashion-MNIST"
    expected: ClassVar[str] = "92.15 %"
    source: ClassVar[str] = "run by us"

    data: str = "fashion-mnist"
    model: str = "v2m_micro"
    epochs: int = 15
    batch_size: int = 64
    ema_decay: float = 0.999
    augment: AugmentConfig = field(default_factory=lambda: AugmentConfig(scale=(0.85, 1.0), ratio=(0.9, 1.1)))
    optimizer: OptimizerConfig = field(default_factory=lambda: OptimizerConfig(lr=3e-3))
