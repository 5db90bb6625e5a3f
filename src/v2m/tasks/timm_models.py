"""What timm knows of a model by its name: its settings, whether there are weights, and its arguments."""

from typing import Any

import timm
from timm.data import ImageNetInfo, infer_imagenet_subset
from timm.models import get_pretrained_cfg

from v2m.data.class_names import told_apart
from v2m.models import MODELS
from v2m.models.create import nearest_models


def model_defaults(name: str) -> dict[str, Any]:
    """The default configuration (timm's) of a model by name.

    Raises:
        ValueError: timm knows no such model; the message names the nearest ones.
    """
    if not timm.is_model(name):
        names = nearest_models(name) or MODELS
        raise ValueError(f"model: {name!r} is no model, nearest: {', '.join(names)} (see 'v2m list')")
    cfg = get_pretrained_cfg(name)
    return cfg.to_dict() if cfg else {}


def has_timm_weights(name: str) -> bool:
    """Whether timm has trained weights of a model."""
    cfg = get_pretrained_cfg(name)
    return cfg is not None and cfg.has_weights


def image_args(name: str, img_size: tuple[int, int], in_chans: int) -> dict[str, Any]:
    """The arguments with which a model takes images of this size and number of channels."""
    args: dict[str, Any] = dict(in_chans=in_chans)
    if name in MODELS or model_defaults(name).get("fixed_input_size"):
        args["img_size"] = img_size
    return args


def imagenet_classes(num_classes: int) -> list[str] | None:
    """Names of ImageNet's classes; timm tells its versions by this number. None for other numbers."""
    subset = infer_imagenet_subset(dict(num_classes=num_classes))
    if subset is None:
        return None
    info = ImageNetInfo(subset)
    return told_apart(info.label_descriptions(), info.label_names())
