"""Folders with a trained model: weights and ``config.json``, those of classifiers in timm's hub format.

A folder is read once, by ``read_folder``; what it holds is then checked step by step: the configuration, the
sums of both files, and the size of the model before there is memory for it.
"""

import hashlib
import json
import shutil
import tempfile
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import timm
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from timm.models import split_model_name_tag
from torch import Tensor, nn

from v2m.models.bounds import check_finite
from v2m.models.former_words import are_of_conv, needs_weights
from v2m.system.errors import DataError, short
from v2m.system.files import file_sha256, put_in_place, read_json
from v2m.tasks.saved_config import SHA256, SavedConfig, read_saved_config
from v2m.tasks.timm_models import TIMM
from v2m.tasks.weights import read_header

M = TypeVar("M", bound=nn.Module)

WEIGHTS, CONFIG = "model.safetensors", "config.json"
CONFIG_BYTES = 2**24
ACCEPT = f'to take it as it is, delete "{SHA256}" from {CONFIG}'
SAVING = ".saving-"
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


class ModelFolder(NamedTuple):
    """A folder with a model, its configuration, and what of it all tasks have in common, checked."""

    path: Path
    config: dict[str, Any]
    saved: SavedConfig

    @property
    def task(self) -> str:
        """What the model is for."""
        return self.saved.task


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


def read_folder(path: Path, prefix: str = "") -> ModelFolder:
    """The folder that ``path`` is, or is the weights file of.

    Raises:
        DataError: there is no model; the message starts with ``prefix``.
    """
    folder = path.parent if path.name == WEIGHTS else path
    where = f"{prefix}{path}"
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
    return ModelFolder(folder, config, saved)


def check_task(folder: ModelFolder, task: str, wanted: str, prefix: str = "") -> None:
    """See that the model in a folder is for a task.

    Args:
        folder: The folder.
        task: The name of the task.
        wanted: A model of that task in words, such as ``a detector``.
        prefix: What an error starts with.

    Raises:
        DataError: it is for another one.
    """
    if folder.task != task:
        raise DataError(f"{prefix}{folder.path}: a model for {folder.task}, expected {wanted}")


@contextmanager
def loading(folder: ModelFolder, prefix: str = "", file: str = "") -> Iterator[None]:
    """Say in one line that the model in a folder cannot be loaded, for all that building and filling raise.

    Args:
        folder: The folder.
        prefix: What the error starts with.
        file: The file in the folder that is to blame, if one is.

    Raises:
        DataError: something of ``LOAD_ERRORS`` was raised.
    """
    try:
        yield
    except LOAD_ERRORS as error:
        reason = f"{file}: {short(error)}" if file else short(error)
        raise DataError(f"{prefix}{folder.path}: the model cannot be loaded ({reason})") from None


def check_size(folder: ModelFolder, build: Callable[[], nn.Module], prefix: str = "") -> None:
    """See that a model is no larger than the weights in a folder, without memory for it.

    Args:
        folder: The folder.
        build: Builds the model from what ``config.json`` says.
        prefix: What an error starts with.

    Raises:
        DataError: it is larger, or cannot be built; or the weights are damaged.
    """
    with loading(folder, prefix):
        header = read_header(folder.path / WEIGHTS)
        with torch.device("meta"), header.limit():
            model = build()
        header.check_types(model.state_dict())


def load_state(folder: ModelFolder, build: Callable[[], M]) -> M:
    """The model in a folder that is not timm's own, in evaluation mode.

    Args:
        folder: The folder.
        build: Builds the model from what ``config.json`` says.

    Raises:
        DataError: it cannot be built, or is larger than the weights; or these are damaged, or others.
    """
    state = read_weights(folder)
    check_size(folder, build)
    with loading(folder):
        model = build()
        model.load_state_dict(state)
    return model.eval()


def load_classifier(folder: ModelFolder, prefix: str = "", **args: Any) -> nn.Module:
    """The classifier in a folder, in evaluation mode, with other arguments where they are given.

    Raises:
        DataError: it cannot be loaded; the message starts with ``prefix``.
    """
    name, own = f"local-dir:{folder.path}", folder.saved.model_args  # which timm reads in the words of before
    check_weights(folder, prefix)
    check_size(folder, lambda: timm.create_model(name, **own), prefix)
    with loading(folder, prefix):
        model = timm.create_model(name, pretrained=True, **(own | args))
        check_finite(model.state_dict())
    return model.eval()


def check_weights(folder: ModelFolder, prefix: str = "") -> None:
    """See that the weights are those that were saved, where ``config.json`` tells their sum.

    Raises:
        DataError: they are not.
    """
    expected = folder.saved.sha256
    if expected and expected.weights != file_sha256(folder.path / WEIGHTS):
        with loading(folder, prefix, WEIGHTS):
            raise ValueError(
                f"not the weights that {CONFIG} was saved with: the file is damaged or another, or "
                f"saving was interrupted, which v2m train --resume makes good; {ACCEPT}"
            )


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


def save_state(model: nn.Module, config: dict[str, Any], folder: Path) -> None:
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


def read_weights(folder: ModelFolder, prefix: str = "") -> dict[str, Tensor]:
    """The weights in a folder, on the CPU.

    Raises:
        DataError: the file is damaged, is not the one that was saved, or has infinite values or NaN.
    """
    check_weights(folder, prefix)
    with loading(folder, prefix, WEIGHTS):
        read_header(folder.path / WEIGHTS)
        state = load_file(folder.path / WEIGHTS)
        check_finite(state)
    return state
