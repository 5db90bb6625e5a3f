"""Folders with a trained model: weights and ``config.json``, those of classifiers in timm's hub format.

``read_folder`` reads a folder once and checks its configuration. Before a model is built, the SHA-256 of its
weights is checked, and its size, without taking memory for it.
"""

import hashlib
import json
import shutil
import tempfile
from collections.abc import Callable, Collection, Iterator, Mapping
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
from v2m.tasks.names import CONFIG, SAVING, TIMM, WEIGHTS
from v2m.tasks.saved_config import SHA256, SavedConfig, check_model_args, read_saved_config
from v2m.tasks.weights import read_header

M = TypeVar("M", bound=nn.Module)

CONFIG_BYTES = 2**24
ACCEPT = f'to take it as it is, delete "{SHA256}" from {CONFIG}'
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
"""What may be raised where a model is built and its weights are loaded from a damaged or hostile folder."""


class ModelFolder(NamedTuple):
    """A folder with a model.

    Attributes:
        path: The folder.
        config: The whole content of ``config.json``.
        saved: The part of it that all tasks have in common, checked.
    """

    path: Path
    config: dict[str, Any]
    saved: SavedConfig

    @property
    def task(self) -> str:
        """What the model is for."""
        return self.saved.task


def resolve_model_args(name: str, model_args: dict[str, Any], pretrained: str | None) -> dict[str, Any]:
    """All arguments of a model that starts from trained weights.

    With them the model can be built again after the folder with those weights is gone. They are just
    ``model_args`` if there is no such folder, or if it holds another model.

    Raises:
        ValueError: one of ``model_args`` is no argument of a model.
    """
    check_model_args(model_args)
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
    # A run has its own images and classes, whatever those of the folder are.
    of_the_data = ("img_size", "in_chans", "num_classes")
    return {k: v for k, v in saved.model_args.items() if k not in of_the_data} | model_args


def read_folder(path: Path, prefix: str = "") -> ModelFolder:
    """Read the folder of a model.

    Args:
        path: The folder, or the weights file in it.
        prefix: What the message of an error starts with.

    Raises:
        DataError: there is no model.
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
    # A word of earlier versions stood for two mixers. Only the names of the weights tell which one it was.
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
        prefix: What the message of an error starts with.

    Raises:
        DataError: the model is for another task.
    """
    if folder.task != task:
        raise DataError(f"{prefix}{folder.path}: a model for {folder.task}, expected {wanted}")


@contextmanager
def loading(folder: ModelFolder, prefix: str = "", file: str = "") -> Iterator[None]:
    """Turn the errors of building and loading a model into one line that names its folder.

    Args:
        folder: The folder.
        prefix: What the message of the error starts with.
        file: The file in the folder that is to blame, if it is known.

    Raises:
        DataError: one of ``LOAD_ERRORS`` was raised.
    """
    try:
        yield
    except LOAD_ERRORS as error:
        reason = f"{file}: {short(error)}" if file else short(error)
        raise DataError(f"{prefix}{folder.path}: the model cannot be loaded ({reason})") from None


def check_size(folder: ModelFolder, build: Callable[[], nn.Module], prefix: str = "") -> None:
    """Check that a model is no larger than the weights in its folder, without taking memory for it.

    Args:
        folder: The folder.
        build: Builds the model from what ``config.json`` says.
        prefix: What the message of an error starts with.

    Raises:
        DataError: the model is larger, or cannot be built; or the weights are damaged.
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
        DataError: the model cannot be built, or is larger than the weights; or the weights are damaged, or
            those of another model.
    """
    state = read_weights(folder)
    check_size(folder, build)
    with loading(folder):
        model = build()
        model.load_state_dict(state)
    return model.eval()


def load_classifier(folder: ModelFolder, prefix: str = "", **args: Any) -> nn.Module:
    """The classifier in a folder, in evaluation mode.

    Args:
        folder: The folder.
        prefix: What the message of an error starts with.
        **args: Arguments of ``timm.create_model`` in place of the saved ones.

    Raises:
        DataError: the classifier cannot be loaded.
    """
    # timm would read the arguments from the file itself, in the words of earlier versions.
    name, own = f"local-dir:{folder.path}", folder.saved.model_args
    check_weights(folder, prefix)
    check_size(folder, lambda: timm.create_model(name, **own), prefix)
    with loading(folder, prefix):
        model = timm.create_model(name, pretrained=True, **(own | args))
        check_finite(model.state_dict())
    return model.eval()


def check_weights(folder: ModelFolder, prefix: str = "") -> None:
    """Check that the weights are those that were saved, if ``config.json`` has their SHA-256.

    Raises:
        DataError: the weights are others.
    """
    expected = folder.saved.sha256
    if expected and expected.weights != file_sha256(folder.path / WEIGHTS):
        with loading(folder, prefix, WEIGHTS):
            raise ValueError(
                f"not the weights that {CONFIG} was saved with: the file is damaged or another, or "
                f"saving was interrupted, which v2m train --resume makes good; {ACCEPT}"
            )


def settings_sha256(config: dict[str, Any]) -> str:
    """The SHA-256 of the content of ``config.json``.

    It does not depend on the order and spacing of the file, nor on the sums that the file itself holds.
    """
    settings = {key: value for key, value in config.items() if key != SHA256}
    text = json.dumps(settings, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def write_folder(folder: Path, write: Callable[[Path], None]) -> None:
    """Let ``write`` write both files into a temporary folder, and rename each into place when complete.

    The SHA-256 of both are added to ``config.json``. If saving is stopped between the two renames, the next
    reader finds that the files do not belong together.
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


def save_state(state: Mapping[str, Tensor], config: dict[str, Any], folder: Path) -> None:
    """Write the weights of a model, with what it takes to build it again.

    Args:
        state: Its weights by name.
        config: ``task``, ``architecture`` (timm's name of the backbone), ``model_args``, ``num_classes``,
            ``pretrained_cfg`` (with ``mean`` and ``std``), and what the task needs; plain data.
        folder: The folder to write into.
    """

    def write(partial: Path) -> None:
        tensors = {name: value.detach().cpu().contiguous() for name, value in state.items()}
        save_file(tensors, partial / WEIGHTS, metadata=dict(format="pt"))
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
