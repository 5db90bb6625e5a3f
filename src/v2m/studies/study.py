"""What a study is: variants of one training run, each with several seeds."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from v2m.studies.run import StudyRun
from v2m.tasks.config import TrainConfig

SHARED = ("task", "data", "data_dir", "output", "seed")
"""Settings that no variant may change, or its scores could not be compared and its runs not be found."""


@dataclass(frozen=True)
class Variant:
    """A row of a study.

    Attributes:
        about: What it is or tests, in a few words.
        overrides: Fields of ``TrainConfig`` that it has instead of the base's, such as ``model_args``.
    """

    about: str
    overrides: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Study:
    """Variants of one training run, on the same data and with the same seeds.

    Attributes:
        title: What is compared, on what.
        base: What the variants have in common.
        variants: The variants by label. The first is the baseline. Labels are part of the names of folders.
        seeds: Seeds of each variant.
    """

    title: str
    base: TrainConfig
    variants: Mapping[str, Variant]
    seeds: Sequence[int] = (0, 1, 2)

    def __post_init__(self) -> None:
        free = [item.name for item in fields(self.base) if item.name not in SHARED]
        for label, variant in self.variants.items():
            if not re.fullmatch(r"[\w.+-]+", label):
                raise ValueError(f"Study: label is {label!r}, expected letters, digits and any of . + - _")
            for name in variant.overrides:
                if name not in free:
                    raise ValueError(f"Study: {label} overrides {name}, expected one of {', '.join(free)}")

    def runs(self, output: Path, data_dir: str, seeds: Sequence[int]) -> list[StudyRun]:
        """Every variant with every seed, each in a folder of its own in ``output``.

        They are in the order of seeds: a study that is stopped early has all variants for its first seeds.
        """
        runs = []
        for seed in seeds:
            for label, variant in self.variants.items():
                folder = str(output / f"{label}-seed{seed}")
                config = replace(self.base, **variant.overrides, seed=seed, data_dir=data_dir, output=folder)
                runs.append(StudyRun(label, config))
        return runs
