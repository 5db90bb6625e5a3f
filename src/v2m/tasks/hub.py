"""Folders with a trained model: weights and ``config.json``, those of classifiers in timm's hub format."""

import json
import shutil
import tempfile
from collections.abc import Callable
from difflib import get_close_matches
from pathlib import Path
from typing import Any, NamedTuple

import timm
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from timm.models import get_pretrained_cfg, split_model_name_tag
from torch import Tensor, nn

from v2m.data import DataError, first_line
from v2m.data.files import put_in_place
from v2m.models import MODELS

WEIGHTS, CONFIG = "model.safetensors", "config.json"
SAVING = ".saving-"
TIMM = "timm"
"""In place of a folder: the weights that timm has of a model."""
CLASSIFICATION = "classification"
"""The task of a folder that names none, as timm's do not."""
LOAD_ERRORS = (SafetensorError, RuntimeError, AssertionError, AttributeError, KeyError, TypeError, ValueError)
"""What building and filling a model raises where the folder does not fit."""


class Folder(NamedTuple):
    """A folder with a model, and its configuration."""

    path: Path
    config: dict[str, Any]

    @property
    def task(self) -> str:
        """What the model is for."""
        return self.config.get("task", CLASSIFICATION)


def model_defaults(name: str) -> dict[str, Any]:
    """The default configuration (timm's) of a model by name.

    Raises:
        ValueError: timm knows no such model; the message names the nearest ones.
    """
    if not timm.is_model(name):
        nearest = [*get_close_matches(name, MODELS, n=2), *get_close_matches(name, timm.list_models(), n=2)]
        nearest = list(dict.fromkeys(nearest)) or list(MODELS)
        raise ValueError(f"model: {name!r} is no model, nearest: {', '.join(nearest)} (see 'v2m list')")
    cfg = get_pretrained_cfg(name)
    return cfg.to_dict() if cfg else {}


def has_timm_weights(name: str) -> bool:
    """Whether timm has trained weights of a model."""
    cfg = get_pretrained_cfg(name)
    return cfg is not None and cfg.has_weights


def image_args(name: str, img_size: tuple[int, int], in_chans: int) -> dict[str, Any]:
    """Arguments of a model by which it takes images of this size."""
    args: dict[str, Any] = dict(in_chans=in_chans)
    if name in MODELS or model_defaults(name).get("fixed_input_size"):
        args["img_size"] = img_size
    return args


def resolve_model_args(name: str, model_args: dict[str, Any], pretrained: str | None) -> dict[str, Any]:
    """All arguments of the model that starts from a folder, by which it can be built without that folder.

    Where there is no such folder (any more), or it holds another model, they are ``model_args``.
    """
    if pretrained is None or pretrained == TIMM:
        return model_args
    try:
        config = read_folder(Path(pretrained)).config
    except DataError:
        return model_args
    if config["architecture"] != split_model_name_tag(name)[0]:
        return model_args
    of_the_data = ("img_size", "in_chans", "num_classes")
    saved = {k: v for k, v in config.get("model_args", {}).items() if k not in of_the_data}
    return saved | model_args


def read_folder(path: Path, prefix: str = "") -> Folder:
    """The folder that ``path`` is, or is the weights file of.

    Raises:
        DataError: there is no model; the message starts with ``prefix``.
    """
    folder = path.parent if path.name == WEIGHTS else path
    if not (folder / CONFIG).is_file() or not (folder / WEIGHTS).is_file():
        raise DataError(f"{prefix}{path}: no model there, expected a run folder with {CONFIG} and {WEIGHTS}")
    try:
        config = json.loads((folder / CONFIG).read_bytes())
        for key in ("architecture", "num_classes", "pretrained_cfg"):
            config[key]
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"{prefix}{path}: the model cannot be loaded ({CONFIG}: {short(error)})") from None
    return Folder(folder, config)


def read_task_folder(path: Path, task: str) -> Folder:
    """Like ``read_folder``, of a model for this task."""
    folder = read_folder(path)
    if folder.task != task:
        raise DataError(f"{path}: the model is for {folder.task}, expected one for {task}")
    return folder


def write_folder(folder: Path, write: Callable[[Path], None]) -> None:
    """Let ``write`` write both files into a folder beside, and rename each into place when complete."""
    with tempfile.TemporaryDirectory(dir=folder, prefix=SAVING) as partial:
        write(Path(partial))
        shutil.copymode(Path(partial, CONFIG), Path(partial, WEIGHTS))  # safetensors lets only its owner read
        for name in (WEIGHTS, CONFIG):
            put_in_place(Path(partial, name), folder / name)


def save_model(model: nn.Module, config: dict[str, Any], folder: Path) -> None:
    """Write a model that is not timm's own, with what it takes to build it again.

    Args:
        model: The model.
        config: ``task``, ``architecture`` (timm's name of the backbone), ``model_args``, ``num_classes``,
            ``pretrained_cfg`` (with ``mean`` and ``std``), and what the task needs; plain data.
        folder: Where to.
    """

    def write(partial: Path) -> None:
        state = {name: value.detach().cpu().contiguous() for name, value in model.state_dict().items()}
        save_file(state, partial / WEIGHTS, metadata=dict(format="pt"))
        (partial / CONFIG).write_text(json.dumps(config, indent=2) + "\n")

    write_folder(folder, write)


def read_weights(folder: Folder, prefix: str = "") -> dict[str, Tensor]:
    """The weights in a folder, on the CPU.

    Raises:
        DataError: the file is damaged.
    """
    try:
        return load_file(folder.path / WEIGHTS)
    except (SafetensorError, ValueError) as error:
        raise DataError(
            f"{prefix}{folder.path}: the model cannot be loaded ({WEIGHTS}: {short(error)})"
        ) from None


def short(error: Exception) -> str:
    """An error in a part of a line."""
    return " ".join(str(error).split())[:300] or first_line(error)
