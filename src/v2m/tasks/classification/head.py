"""Models with a classification head: build, save and load in timm's hub format."""

import json
import os
import shutil
import tempfile
from difflib import get_close_matches
from pathlib import Path
from typing import Any, NamedTuple

import timm
from safetensors import SafetensorError
from timm.models import get_pretrained_cfg, save_for_hf
from torch import nn

from v2m.data import DataError, ImageSpec
from v2m.models import MODELS

WEIGHTS, CONFIG = "model.safetensors", "config.json"


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


def build_model(name: str, model_args: dict[str, Any], num_classes: int, spec: ImageSpec) -> nn.Module:
    """A new timm model for these classes and images.

    Raises:
        ValueError: the model takes no such argument or value.
    """
    args = dict(in_chans=spec.in_chans, num_classes=num_classes) | model_args
    if name in MODELS or model_defaults(name).get("fixed_input_size"):
        args.setdefault("img_size", spec.img_size)
    try:
        return timm.create_model(name, **args)
    except TypeError as error:
        raise ValueError(f"model_args: {error}") from None


def save_model(model: nn.Module, folder: Path, classes: list[str], spec: ImageSpec) -> None:
    """Write weights and configuration in timm's hub format, each file renamed into place when complete."""
    with tempfile.TemporaryDirectory(dir=folder, prefix=".saving-") as partial:
        save_for_hf(
            model,
            partial,
            model_config=dict(label_names=classes),
            safe_serialization=True,
            data_config=spec.timm_config,
        )
        shutil.copymode(Path(partial, CONFIG), Path(partial, WEIGHTS))  # safetensors lets only its owner read
        for name in (WEIGHTS, CONFIG):
            os.replace(Path(partial, name), folder / name)


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
    folder = path.parent if path.name == WEIGHTS else path
    if not (folder / CONFIG).is_file() or not (folder / WEIGHTS).is_file():
        raise DataError(f"{path}: no model there, expected a run folder with {CONFIG} and {WEIGHTS}")
    try:
        config = json.loads((folder / CONFIG).read_text())
        model = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
    except (json.JSONDecodeError, SafetensorError, RuntimeError, KeyError, TypeError, ValueError) as error:
        raise DataError(
            f"{path}: the model cannot be loaded ({' '.join(str(error).split())[:300]})"
        ) from None
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
