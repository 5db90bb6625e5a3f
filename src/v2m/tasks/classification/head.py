"""Models with a classification head: build, save and load in timm's hub format."""

import json
import shutil
import tempfile
from difflib import get_close_matches
from pathlib import Path
from typing import Any, NamedTuple

import timm
from safetensors import SafetensorError
from timm.models import get_pretrained_cfg, save_for_hf, split_model_name_tag
from torch import nn

from v2m.data import DataError, ImageSpec, first_line
from v2m.data.files import put_in_place
from v2m.models import MODELS

WEIGHTS, CONFIG = "model.safetensors", "config.json"
SAVING = ".saving-"
TIMM = "timm"
"""In place of a folder: the weights that timm has of a model."""


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


def build_model(
    name: str,
    model_args: dict[str, Any],
    num_classes: int,
    spec: ImageSpec,
    pretrained: str | None = None,
) -> nn.Module:
    """A timm model for these classes and images: a new one, or one that starts from trained weights.

    As with timm, position embeddings are resized to the images, the first convolution is turned into one for
    their number of channels, and the head is new where the number of classes differs.

    Args:
        name: timm's name of it.
        model_args: Arguments of the model; those that weights were saved with are the defaults.
        num_classes: Classes of the head.
        spec: The images.
        pretrained: A folder in hub format (a run), or the weights file in one; ``timm`` for the weights that
            timm has; None for new ones.

    Raises:
        ValueError: the model takes no such argument or value, or the weights are another model's, do not fit,
            or cannot be had.
    """
    if pretrained is not None:
        return _build_pretrained("pretrained", name, model_args, num_classes, spec, pretrained)
    try:
        return timm.create_model(name, **_image_args(name, spec) | dict(num_classes=num_classes) | model_args)
    except TypeError as error:
        raise ValueError(f"model_args: {error}") from None


def resolve_model_args(model_args: dict[str, Any], pretrained: str | None) -> dict[str, Any]:
    """All arguments of the model that ``build_model`` builds, by which it can be built without that folder.

    Where there is no such folder (any more), they are ``model_args``.
    """
    if pretrained is None or pretrained == TIMM:
        return model_args
    try:
        _, config = _read_folder(Path(pretrained))
    except DataError:
        return model_args
    of_the_data = ("img_size", "in_chans", "num_classes")
    saved = {k: v for k, v in config.get("model_args", {}).items() if k not in of_the_data}
    return saved | model_args


def load_teacher(teacher: str, classes: list[str], spec: ImageSpec) -> nn.Module:
    """A trained classifier of these classes that takes these images, but for their mean and deviation.

    Those that it was trained with are in its ``pretrained_cfg``.

    Args:
        teacher: timm's name of a model that it has weights of, or a folder in hub format.
        classes: The classes in their order.
        spec: The images that it will be given, resized to if it takes one size only.

    Raises:
        ValueError: there is no such model, or it has other classes or takes other images.
    """
    option = "distill.teacher"
    if timm.is_model(teacher):
        name, source, names, cfg = teacher, TIMM, None, model_defaults(teacher)
        count = cfg.get("num_classes", 0)
    elif Path(teacher).exists():
        _, config = _read_folder(Path(teacher), f"{option}: ")
        name, source, names = config["architecture"], teacher, config.get("label_names")
        count, cfg = config["num_classes"], config["pretrained_cfg"]
    else:
        nearest = get_close_matches(teacher, timm.list_models(), n=2)
        hint = f"; the nearest models are {', '.join(nearest)}" if nearest else ""
        raise ValueError(f"{option}: {teacher!r} is neither a timm model nor a run folder{hint}")
    if count != len(classes):
        raise ValueError(f"{option}: {teacher} has {count} classes, the data have {len(classes)}")
    if isinstance(names, list) and names != classes:
        other = next(pair for pair in zip(names, classes, strict=True) if pair[0] != pair[1])
        raise ValueError(f"{option}: {teacher} has a class {other[0]!r} where the data have {other[1]!r}")
    channels = cfg["input_size"][0]
    if channels != spec.in_chans:
        raise ValueError(
            f"{option}: {teacher} takes images of {channels} channels, these have {spec.in_chans}; "
            f"give another teacher, or --input.in_chans {channels}"
        )
    return _build_pretrained(option, name, {}, count, spec, source)


def _image_args(name: str, spec: ImageSpec) -> dict[str, Any]:
    args: dict[str, Any] = dict(in_chans=spec.in_chans)
    if name in MODELS or model_defaults(name).get("fixed_input_size"):
        args["img_size"] = spec.img_size
    return args


def _build_pretrained(
    option: str, name: str, model_args: dict[str, Any], num_classes: int, spec: ImageSpec, source: str
) -> nn.Module:
    """Build with all trained weights, which shows whether they fit, and only then replace the head."""
    args = _image_args(name, spec) | model_args
    if source == TIMM:
        cfg = get_pretrained_cfg(name)
        if cfg is None or not cfg.has_weights:
            raise ValueError(f"{option}: timm has no weights of {name}, expected a run folder")
        try:
            model = timm.create_model(name, pretrained=True, **args)
        except Exception as error:  # a download raises nearly anything
            raise ValueError(
                f"{option}: timm's weights of {name} cannot be loaded ({_short(error)})"
            ) from None
    else:
        folder, config = _read_folder(Path(source), f"{option}: ")
        architecture = config["architecture"]
        if architecture != split_model_name_tag(name)[0]:
            raise ValueError(
                f"{option}: {source} holds a {architecture}, but the model is {name}; "
                f"give --model {architecture}"
            )
        names = dict(label_names=None, label_descriptions=None)  # not those of the new data
        model = _load(folder, f"{option}: {source}", pretrained_cfg_overlay=names, **args)
    if model.num_classes != num_classes:
        model.reset_classifier(num_classes)
    return model


def save_model(model: nn.Module, folder: Path, classes: list[str], spec: ImageSpec) -> None:
    """Write weights and configuration in timm's hub format, each file renamed into place when complete."""
    with tempfile.TemporaryDirectory(dir=folder, prefix=SAVING) as partial:
        save_for_hf(
            model,
            partial,
            model_config=dict(label_names=classes),
            safe_serialization=True,
            data_config=spec.timm_config,
        )
        shutil.copymode(Path(partial, CONFIG), Path(partial, WEIGHTS))  # safetensors lets only its owner read
        for name in (WEIGHTS, CONFIG):
            put_in_place(Path(partial, name), folder / name)


class SavedModel(NamedTuple):
    """A model as it was saved: in evaluation mode, with its timm name, class names and images."""

    model: nn.Module
    name: str
    classes: list[str]
    spec: ImageSpec


def load_model(path: Path) -> SavedModel:
    """Load a folder in hub format (a run, or the output of ``v2m convert``), or the weights file in one.

    Raises:
        DataError: the folder is missing or is no model, or its weights do not fit.
    """
    folder, config = _read_folder(path)
    model = _load(folder, str(path)).eval()
    cfg = config["pretrained_cfg"]
    channels, height, width = cfg["input_size"]
    spec = ImageSpec(
        (height, width),
        channels,
        tuple(cfg["mean"]),
        tuple(cfg["std"]),
        cfg["crop_pct"],
        cfg["interpolation"],
    )
    classes = config.get("label_names") or [str(i) for i in range(config["num_classes"])]
    return SavedModel(model, config["architecture"], list(classes), spec)


def _read_folder(path: Path, prefix: str = "") -> tuple[Path, dict[str, Any]]:
    """The folder in hub format that ``path`` is, or is the weights file of, and its configuration."""
    folder = path.parent if path.name == WEIGHTS else path
    if not (folder / CONFIG).is_file() or not (folder / WEIGHTS).is_file():
        raise DataError(f"{prefix}{path}: no model there, expected a run folder with {CONFIG} and {WEIGHTS}")
    try:
        config = json.loads((folder / CONFIG).read_text())
        for key in ("architecture", "num_classes", "pretrained_cfg"):
            config[key]
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"{prefix}{path}: the model cannot be loaded ({CONFIG}: {_short(error)})") from None
    return folder, config


def _load(folder: Path, what: str, **args: Any) -> nn.Module:
    """The model in a folder, with other arguments where they are given."""
    try:
        return timm.create_model(f"local-dir:{folder}", pretrained=True, **args)
    except (
        SafetensorError,
        RuntimeError,
        AssertionError,
        AttributeError,
        KeyError,
        TypeError,
        ValueError,
    ) as error:
        raise DataError(f"{what}: the model cannot be loaded ({_short(error)})") from None


def _short(error: Exception) -> str:
    return " ".join(str(error).split())[:300] or first_line(error)
