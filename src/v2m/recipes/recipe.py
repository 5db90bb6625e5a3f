"""What a recipe is."""

from dataclasses import dataclass
from typing import ClassVar

from v2m.engine.config import TrainConfig


@dataclass(frozen=True)
class Recipe(TrainConfig):
    """A training run: defaults of ``TrainConfig`` for one purpose, and what to expect of them.

    The docstring of a recipe gives its command, score, hardware and time.

    Attributes:
        images: What it trains on.
        expected: Accuracy on the validation images.
        source: Whose settings they are, and who has run them.
    """

    images: ClassVar[str]
    expected: ClassVar[str]
    source: ClassVar[str]
