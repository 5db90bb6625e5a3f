"""From the configuration that a user gives to one with nothing left open."""

from dataclasses import replace
from datetime import datetime
from itertools import chain, count
from pathlib import Path

from timm.optim import list_optimizers

from v2m.data import DATASETS
from v2m.engine.trackers import check_trackers
from v2m.system.errors import is_text, shown
from v2m.system.names import nearest, safe_name
from v2m.tasks import find_task
from v2m.tasks.config import TrainConfig


def resolve(config: TrainConfig) -> TrainConfig:
    """The configuration with nothing left open, and folders by their absolute path.

    Raises:
        ValueError: there is no such model or optimiser, the model takes no such images, a tracker is not
            installed, or a path is no text.
    """
    for name in ("data", "data_dir", "output", "pretrained"):
        _check_text(name, getattr(config, name))
    config = find_task(config.task).resolve(config)
    if config.optimizer.name not in list_optimizers():
        names = nearest(config.optimizer.name, list_optimizers(), most=3) or ["adamw"]
        raise ValueError(
            f"optimizer.name: {config.optimizer.name!r} is no optimiser, nearest: {', '.join(names)}"
        )
    check_trackers(config.trackers)
    name = safe_name(f"{Path(config.data).resolve().name}-{config.model.replace('/', '_')}")
    # A run may be resumed from another working directory, so train.yaml gets absolute paths.
    return replace(
        config,
        pretrained=_absolute(config.pretrained),
        data=absolute_source(config.data),
        output=config.output or _new_folder(name),
    )


def absolute_source(data: str) -> str:
    """The absolute path of a folder or table. A dataset's name stays, even if a folder has it too."""
    return data if data in DATASETS or not Path(data).exists() else str(Path(data).resolve())


def _check_text(name: str, path: str | None) -> None:
    """Refuse a path whose bytes are no text: ``train.yaml`` could not hold it."""
    if path and not is_text(str(Path(path).absolute())):
        raise ValueError(f"{name}: {shown(path)} is not UTF-8, expected another name")


def _absolute(name: str | None) -> str | None:
    """The absolute path of a folder or file that is there. Anything else is a name, and stays as it is."""
    return str(Path(name).resolve()) if name and Path(name).exists() else name


def _new_folder(name: str) -> str:
    """A folder in runs/ that is not there yet: named by the time, with a number where that name is taken."""
    path = str(Path("runs") / f"{name}-{datetime.now():%Y%m%d-%H%M%S}")
    candidates = chain([path], (f"{path}-{number}" for number in count(2)))
    return next(candidate for candidate in candidates if not Path(candidate).exists())
