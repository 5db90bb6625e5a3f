"""What a recipe is."""

from dataclasses import dataclass
from typing import ClassVar

from v2m.tasks.config import TrainConfig


@dataclass(frozen=True)
class Recipe(TrainConfig):
    """A training run: defaults of a task's configuration for one purpose, and what to expect of them.

    Recipes have the configuration first among their bases and this class after it. The docstring of a recipe
    gives its command, score, hardware and time.

    Attributes:
        images: What it trains on.
        expected: Score on the validation images.
        source: Whose settings they are, and who has run them.
    """

    images: ClassVar[str]
    expected: ClassVar[str]
    source: ClassVar[str]
