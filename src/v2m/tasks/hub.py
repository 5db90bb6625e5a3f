"""Folders with a trained model: weights and ``config.json``, those of classifiers in timm's hub format."""

import hashlib
import json
import shutil
import tempfile
from collections.abc import Callable, Collection
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import timm
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from timm.models import get_pretrained_cfg, split_model_name_tag
from torch import Tensor, nn

from v2m.models import MODELS
from v2m.models.bounds import check_finite
from v2m.models.former_words import are_of_conv, needs_weights
from v2m.system.errors import DataError, short, shown
from v2m.system.files import file_sha256, put_in_place, read_json
from v2m.system.names import nearest
from v2m.tasks.saved_config import SHA256, SavedConfig, read_saved_config
from v2m.tasks.weights import read_header

M = TypeVar("M", bound=nn.Module)

WEIGHTS, CONFIG = "model.safetensors", "config.json"
CONFIG_BYTES = 2**24
ACCEPT = f'to take it as it is, delete "{SHA256}" from {CONFIG}'
SAVING = ".saving-"
TIMM = "timm"
"""In place of a folder: the weights that timm has of a model."""
LOAD_ERRORS = (
    SafetensorError,
    RuntimeError,
    AssertionError,
    AttributeError,
    LookupError,
    TypeError,
    ValueError,
    ArithmeticError,
    ImportError,
)
"""What building and filling a model raises where the folder does not fit."""


class Folder(NamedTuple):
    """A folder with a model, its configuration, and what of it all tasks have in common, checked."""

    path: Path
    config: dict[str, Any]
    saved: SavedConfig

    @property
    def task(self) -> str:
        """What the model is for."""
        return self.saved.task


def model_defaults(name: str) -> dict[str, Any]:
    """The default configuration (timm's) of a model by name.

    Raises:
        ValueError: timm knows no such model; the message names the nearest ones.
    """
    if not timm.is_model(name):
        names = [*nearest(name, MODELS, most=2), *nearest(name, timm.list_models(), most=2)]
        names = list(dict.fromkeys(names)) or list(MODELS)
        raise ValueError(f"model: {name!r} is no model, nearest: {', '.join(names)} (see 'v2m list')")
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
        folder = read_folder(Path(pretrained))
        saved = folder.saved
        if saved.architecture != split_model_name_tag(name)[0]:
            return model_args
        check_size(folder, lambda: timm.create_model(saved.architecture, **saved.model_args))
    except DataError:
        return model_args
    of_the_data = ("img_size", "in_chans", "num_classes")
    return {k: v for k, v in saved.model_args.items() if k not in of_the_data} | model_args


def read_folder(path: Path, prefix: str = "") -> Folder:
    """The folder that ``path`` is, or is the weights file of.

    Raises:
        DataError: there is no model; the message starts with ``prefix``.
    """
    folder = path.parent if path.name == WEIGHTS else path
    where = f"{prefix}{shown(str(path))}"
    if not (folder / CONFIG).is_file() or not (folder / WEIGHTS).is_file():
        raise DataError(f"{where}: no model there, expected a run folder with {CONFIG} and {WEIGHTS}")
    try:
        config = read_json(folder / CONFIG, CONFIG_BYTES)
        saved = read_saved_config(config)
        if saved.sha256 and saved.sha256.settings != settings_sha256(config):
            raise ValueError(f"it was changed since it was saved; {ACCEPT}")
    except ValueError as error:
        raise DataError(f"{where}: the model cannot be loaded ({CONFIG}: {short(error)})") from None
    if needs_weights(saved.architecture, saved.model_args):
        names: Collection[str] = ()
        with suppress(*LOAD_ERRORS):  # what is wrong with the file is told where it is loaded
            names = read_header(folder / WEIGHTS).is_float
        if are_of_conv(names):
            saved = replace(saved, model_args=saved.model_args | dict(mixer="conv"))
    return Folder(folder, config, saved)


def read_task_folder(path: Path, task: str) -> Folder:
    """Like ``read_folder``, of a model for this task."""
    folder = read_folder(path)
    if folder.task != task:
        raise DataError(f"{shown(str(path))}: the model is for {folder.task}, expected one for {task}")
    return folder


def check_size(folder: Folder, build: Callable[[], Any], prefix: str = "") -> None:
    """See that a model is no larger than the weights in a folder, without memory for it.

    Args:
        folder: The folder.
        build: Builds the model from what ``config.json`` says.
        prefix: What an error starts with.

    Raises:
        DataError: it is larger, or cannot be built; or the weights are damaged.
    """
    try:
        header = read_header(folder.path / WEIGHTS)
        with torch.device("meta"), header.limit():
            model = build()
        if isinstance(model, nn.Module):
            header.check_types(model.state_dict())
    except LOAD_ERRORS as error:
        raise _unloadable(folder, error, prefix) from None


def load_state(folder: Folder, build: Callable[[], M]) -> M:
    """The model in a folder that is not timm's own.

    Args:
        folder: The folder.
        build: Builds the model from what ``config.json`` says.

    Raises:
        DataError: it cannot be built, or is larger than the weights; or these are damaged, or others.
    """
    state = read_weights(folder)
    check_size(folder, build)
    try:
        model = build()
        model.load_state_dict(state)
    except LOAD_ERRORS as error:
        raise _unloadable(folder, error) from None
    return model


def load_classifier(folder: Folder, prefix: str = "", **args: Any) -> nn.Module:
    """The classifier in a folder, with other arguments where they are given.

    Raises:
        DataError: it cannot be loaded; the message starts with ``prefix``.
    """
    name, own = f"local-dir:{folder.path}", folder.saved.model_args  # which timm reads in the words of before
    check_weights(folder, prefix)
    check_size(folder, lambda: timm.create_model(name, **own), prefix)
    try:
        model = timm.create_model(name, pretrained=True, **(own | args))
        check_finite(model.state_dict())
    except LOAD_ERRORS as error:
        raise _unloadable(folder, error, prefix) from None
    return model


def check_weights(folder: Folder, prefix: str = "") -> None:
    """See that the weights are those that were saved, where ``config.json`` tells their sum.

    Raises:
        DataError: they are not.
    """
    expected = folder.saved.sha256
    if expected and expected.weights != file_sha256(folder.path / WEIGHTS):
        reason = (
            f"{WEIGHTS}: not the weights that {CONFIG} was saved with: the file is damaged or another, or "
            f"saving was interrupted, which v2m train --resume makes good; {ACCEPT}"
        )
        raise _unloadable(folder, ValueError(reason), prefix)


def settings_sha256(config: dict[str, Any]) -> str:
    """The SHA-256 of settings, whatever their order and spaces; that of ``config.json`` is not part of it."""
    settings = {key: value for key, value in config.items() if key != SHA256}
    text = json.dumps(settings, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def write_folder(folder: Path, write: Callable[[Path], None]) -> None:
    """Let ``write`` write both files into a folder beside, and rename each into place when complete.

    Their SHA-256 are added to ``config.json``: where they are read, it is found if saving was stopped
    between the two.
    """
    with tempfile.TemporaryDirectory(dir=folder, prefix=SAVING) as partial:
        write(Path(partial))
        _add_sums(Path(partial))
        shutil.copymode(Path(partial, CONFIG), Path(partial, WEIGHTS))  # safetensors lets only its owner read
        for name in (WEIGHTS, CONFIG):
            put_in_place(Path(partial, name), folder / name)


def _add_sums(folder: Path) -> None:
    config = json.loads((folder / CONFIG).read_bytes())
    config[SHA256] = dict(weights=file_sha256(folder / WEIGHTS), settings=settings_sha256(config))
    (folder / CONFIG).write_text(json.dumps(config, indent=2) + "\n")


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
        DataError: the file is damaged, is not the one that was saved, or has infinite values or NaN.
    """
    check_weights(folder, prefix)
    try:
        read_header(folder.path / WEIGHTS)
        state = load_file(folder.path / WEIGHTS)
        check_finite(state)
    except (SafetensorError, ValueError) as error:
        raise _unloadable(folder, ValueError(f"{WEIGHTS}: {short(error)}"), prefix) from None
    return state


def _unloadable(folder: Folder, error: Exception, prefix: str = "") -> DataError:
    return DataError(f"{prefix}{shown(str(folder.path))}: the model cannot be loaded ({short(error)})")
