"""From a configuration to what is built: nothing left open, and the optimiser."""

from dataclasses import replace
from datetime import datetime
from difflib import get_close_matches
from itertools import chain, count
from pathlib import Path

from timm.optim import create_optimizer_v2, list_optimizers
from torch import nn
from torch.optim import Optimizer

from v2m.data import DATASETS
from v2m.data.errors import is_text, shown
from v2m.engine.config import OptimizerConfig, TrainConfig
from v2m.engine.trackers import check_trackers
from v2m.tasks.classification.config import InputConfig
from v2m.tasks.classification.data import resolve_augment, resolve_image_spec
from v2m.tasks.classification.head import model_defaults, resolve_model_args


def resolve(config: TrainConfig) -> TrainConfig:
    """The configuration with nothing left open, and folders by their whole path.

    Raises:
        ValueError: there is no such model or optimiser, the model takes no such images, a tracker is not
            installed, or a path is no text.
    """
    for name in ("data", "data_dir", "output", "pretrained"):
        _check_text(name, getattr(config, name))
    data = Path(config.data)
    spec = resolve_image_spec(config.input, config.data, model_defaults(config.model))
    if config.optimizer.name not in list_optimizers():
        nearest = get_close_matches(config.optimizer.name, list_optimizers(), n=3) or ["adamw"]
        raise ValueError(
            f"optimizer.name: {config.optimizer.name!r} is no optimiser, nearest: {', '.join(nearest)}"
        )
    check_trackers(config.trackers)
    return replace(
        config,
        model_args=resolve_model_args(config.model_args, config.pretrained),
        pretrained=_whole_path(config.pretrained),
        distill=replace(config.distill, teacher=_whole_path(config.distill.teacher)),
        data=str(data.resolve()) if data.is_dir() and config.data not in DATASETS else config.data,
        output=config.output or _new_folder(f"{data.resolve().name}-{config.model.replace('/', '_')}"),
        augment=resolve_augment(config.augment, config.data),
        input=InputConfig(spec.img_size, spec.in_chans, spec.mean, spec.std, spec.crop_pct),
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
