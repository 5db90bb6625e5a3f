"""One run of a study: its folder, its command, and whether what is saved there fits."""

import json
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from v2m.data.named import DATASETS
from v2m.engine.run_folder import RunFolder
from v2m.models.former_words import todays_words
from v2m.recipes import starting_config
from v2m.recipes.photos import CHOSEN
from v2m.tasks import find_task
from v2m.tasks.config import TrainConfig, settings
from v2m.tasks.names import CLASSIFICATION

if TYPE_CHECKING:
    from v2m.tasks.task import Metric

PLACES = ("output", "data_dir", "workers")
"""Settings that may change from one start of a study to the next."""


@dataclass(frozen=True)
class StudyRun:
    """One run of a study.

    Attributes:
        label: The variant that it is a run of.
        config: Its configuration, with a folder in ``output``.
    """

    label: str
    config: TrainConfig

    @property
    def arguments(self) -> list[str]:
        """The arguments of ``v2m train`` that give its configuration."""
        return train_arguments(self.config)

    @property
    def folder(self) -> RunFolder:
        """The folder that keeps everything of this run."""
        return RunFolder(self.config.output or "")

    @property
    def name(self) -> str:
        """The name of its folder."""
        return self.folder.path.name

    @property
    def metrics(self) -> "Sequence[Metric]":
        """What its task measures."""
        return find_task(self.config.task).val_metrics

    @property
    def epochs_done(self) -> int:
        """Epochs that are trained and saved."""
        return len(self.folder.read_metrics())

    @property
    def is_done(self) -> bool:
        """Whether nothing is left to train."""
        return self.epochs_done >= self.config.epochs

    def check(self) -> None:
        """Make sure that this run can be trained, or go on from what is saved in its folder.

        Raises:
            ValueError: the configuration cannot be used, the saved run has another one, or its metrics are
                damaged.
        """
        from v2m.engine.resolve import resolve  # asks timm, which the list of studies need not wait for

        asked = settings(resolve(self.config))
        if not self.folder.metrics.is_file():
            return
        # Half of a run with other settings would be neither the one nor the other.
        saved = self.folder.read_config()
        # An older version may have saved arguments under names that have changed since.
        if isinstance(saved.get("model_args"), dict):
            saved["model_args"] = todays_words(str(saved.get("model")), saved["model_args"])
        for name, value in asked.items():
            before = _setting(saved, name)
            if name not in PLACES and before != value:
                raise ValueError(
                    f"output: {self.folder.path} was trained with {name} {before}, the study has {value}; "
                    "choose another --output, or move that folder away"
                )
        # The table needs these of every epoch. A damaged line is better known before hours of training.
        needed = {"seconds", *(f"val_{key}" for key, _ in self.metrics)}
        for number, row in enumerate(self.folder.read_metrics(), 1):
            if missing := needed - row.keys():
                raise ValueError(
                    f"{self.folder.metrics} is damaged in line {number} (no {min(missing)}); "
                    f"v2m train --resume {shlex.quote(str(self.folder.path))} writes it again"
                )


def _setting(saved: Any, name: str) -> Any:
    """A saved setting by its dotted name; an empty mapping if it is not there."""
    for part in name.split("."):
        saved = saved.get(part, {}) if isinstance(saved, dict) else {}
    return saved


def train_arguments(config: TrainConfig) -> list[str]:
    """The arguments of ``v2m train`` that give a configuration: task, dataset, and what else differs.

    Settings that the dataset's recipe or the task has anyway are left out, so that the command shows what the
    run is about.
    """
    start = settings(starting_config(task=config.task, data=config.data))
    # What suits the images of a folder is chosen where nothing is given, so that is given in any case.
    open_ = CHOSEN if config.task == CLASSIFICATION and config.data not in DATASETS else ()
    changed = {name: v for name, v in settings(config).items() if v != start[name] or name in open_}
    named = {} if config.task == CLASSIFICATION else dict(task=config.task)
    arguments = []
    for name, value in (named | dict(data=config.data) | changed).items():
        arguments += [f"--{name}", value if isinstance(value, str) else json.dumps(value)]
    return arguments
