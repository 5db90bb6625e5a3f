"""From a configuration to what is built: nothing left open, and the optimiser."""

from dataclasses import replace
from datetime import datetime
from itertools import chain, count
from pathlib import Path

from timm.optim import create_optimizer_v2, list_optimizers
from timm.scheduler import CosineLRScheduler, MultiStepLRScheduler, PolyLRScheduler
from timm.scheduler.scheduler import Scheduler
from torch import nn
from torch.optim import Optimizer

from v2m.data import DATASETS
from v2m.engine.trackers import check_trackers
from v2m.system.errors import is_text, shown
from v2m.system.names import nearest, safe_name
from v2m.tasks import find_task
from v2m.tasks.config import OptimizerConfig, ScheduleConfig, TrainConfig


def resolve(config: TrainConfig) -> TrainConfig:
    """The configuration with nothing left open, and folders by their whole path.

    Raises:
        ValueError: there is no such model or optimiser, the model takes no such images, a tracker is not
            installed, or a path is no text.
    """
    for name in ("data", "data_dir", "output", "pretrained"):
        _check_text(name, getattr(config, name))
    data = Path(config.data)
    config = find_task(config.task).resolve(config)
    if config.optimizer.name not in list_optimizers():
        names = nearest(config.optimizer.name, list_optimizers(), most=3) or ["adamw"]
        raise ValueError(
            f"optimizer.name: {config.optimizer.name!r} is no optimiser, nearest: {', '.join(names)}"
        )
    check_trackers(config.trackers)
    return replace(
        config,
        pretrained=_whole_path(config.pretrained),
        data=str(data.resolve()) if data.is_dir() and config.data not in DATASETS else config.data,
        output=config.output
        or _new_folder(safe_name(f"{data.resolve().name}-{config.model.replace('/', '_')}")),
    )


def _check_text(name: str, path: str | None) -> None:
    """Refuse a path of bytes that are no text, which the configuration could not hold."""
    if path and not is_text(str(Path(path).absolute())):
        raise ValueError(f"{name}: {shown(path)} is not UTF-8, expected another name")


def _whole_path(name: str | None) -> str | None:
    """The whole path of what may be a folder or file, or else a name."""
    return str(Path(name).resolve()) if name and Path(name).exists() else name


def _new_folder(name: str) -> str:
    """A folder in runs/ that is not there yet, named by the time, and by a number where that is taken."""
    path = str(Path("runs") / f"{name}-{datetime.now():%Y%m%d-%H%M%S}")
    candidates = chain([path], (f"{path}-{number}" for number in count(2)))
    return next(candidate for candidate in candidates if not Path(candidate).exists())


def build_optimizer(module: nn.Module, config: OptimizerConfig) -> Optimizer:
    """An optimiser of timm for a module."""
    return create_optimizer_v2(
        module,
        opt=config.name,
        lr=config.lr,
        weight_decay=config.weight_decay,
        layer_decay=config.layer_decay,
    )


def build_schedule(optimizer: Optimizer, config: ScheduleConfig, steps: int) -> Scheduler:
    """A schedule of timm over the steps of a run."""
    once = dict(cycle_decay=0.5)  # of later cycles, of which there are none; with 1, timm warns of one step
    share = dict(warmup_t=int(steps * config.warmup), warmup_lr_init=config.warmup_lr, t_in_epochs=False)
    if config.kind == "steps":
        after = [int(steps * part) + 1 for part in config.milestones]  # timm counts steps from 1 here
        return MultiStepLRScheduler(optimizer, after, decay_rate=0.1, warmup_prefix=False, **share)
    if config.kind == "poly":
        return PolyLRScheduler(optimizer, steps, power=config.power, lr_min=config.min_lr, **once, **share)
    return CosineLRScheduler(optimizer, steps, lr_min=config.min_lr, **once, **share)
