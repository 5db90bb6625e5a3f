"""What a recipe is."""

from dataclasses import dataclass

from v2m.tasks.config import TrainConfig

FOLDER = "FOLDER"
"""The ``data`` of a configuration whose images the user has to name."""
EIGHT_GPUS = "torchrun --nproc_per_node 8 -m v2m train"
"""How a command begins that trains on eight GPUs of one machine."""
NOT_MEASURED = "not measured yet"
"""The score of a recipe whose run is still to come."""
COLUMNS = ("recipe", "model", "data", "expected", "where from")
"""Headings of the table of recipes."""


@dataclass(frozen=True)
class Recipe:
    """A training run for one purpose: its settings, its commands, and what to expect of it.

    Attributes:
        name: What ``v2m train --recipe`` calls it. The recipe of a named dataset has the dataset's name.
        title: What it does, in one sentence.
        config: Its settings. ``data`` is ``FOLDER`` where the user has to name the images.
        images: What it trains on.
        commands: What to run, one after the other.
        details: What else to know of the run.
        expected: Score on the validation images.
        source: Whose settings they are, and who has run them.
        score_details: What else to know of the score.
        hardware: What it runs on, and how long that takes.
    """

    name: str
    title: str
    config: TrainConfig
    images: str
    commands: tuple[str, ...]
    expected: str
    source: str
    hardware: str
    details: str = ""
    score_details: str = ""

    @property
    def cells(self) -> tuple[str, ...]:
        """Its row in the table of recipes, under ``COLUMNS``."""
        return self.name, self.config.model, self.images, self.expected, self.source
