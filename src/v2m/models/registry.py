"""Registration with timm: after ``import v2m``, ``timm.create_model`` knows these names.

This module is imported as soon as timm is, whoever imports timm: it may be a module of the families. So this
one imports neither family. An entry point does, when a model is created.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from timm.layers import to_2tuple
from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from torch import Tensor

from v2m.models.former_words import are_of_conv, todays_words
from v2m.models.variants import ABOUT, HIERARCHICAL_ARGUMENTS, MODELS, PLAIN_ARGUMENTS

if TYPE_CHECKING:
    from v2m.models.hierarchical import HierarchicalV2M
    from v2m.models.plain import V2M

LAST_STRIDE = 32
"""Pixels from one cell to the next in the last stage of the hierarchical models."""


def _default_cfg(name: str) -> dict[str, Any]:
    """Timm's default configuration of a model."""
    if arguments := PLAIN_ARGUMENTS.get(name):
        stride = max(to_2tuple(arguments["patch_size"]))
        first_conv = "patch_embed.proj.0.conv" if arguments.get("conv_stem") else "patch_embed.proj"
        crop_pct = 1.0 if arguments["img_size"] == 32 else 0.875
    else:
        arguments = HIERARCHICAL_ARGUMENTS[name]
        stride, first_conv, crop_pct = LAST_STRIDE, "stem.0.conv", 0.9
    height, width = to_2tuple(arguments["img_size"])
    return dict(
        url="",
        num_classes=1000,
        input_size=(3, height, width),
        pool_size=(height // stride, width // stride),
        crop_pct=crop_pct,
        interpolation="bicubic",
        fixed_input_size=False,
        mean=IMAGENET_DEFAULT_MEAN,
        std=IMAGENET_DEFAULT_STD,
        first_conv=first_conv,
        classifier="head",
        license="apache-2.0",
        paper_ids="arXiv:2410.10382",
        paper_name="V2M: Visual 2-Dimensional Mamba for Image Representation Learning",
    )


default_cfgs = generate_default_cfgs({f"{name}.untrained": _default_cfg(name) for name in MODELS})


def _feature_cfg(kwargs: dict[str, Any], out_indices: int | tuple[int, ...]) -> dict[str, Any]:
    """What timm makes features of; takes their settings out of ``kwargs``."""
    cfg = dict(out_indices=kwargs.pop("out_indices", out_indices), feature_cls="getter")
    if kwargs.get("feature_cls") in ("list", "dict"):
        # timm would run the children one after the other, without position embedding. Hooks give the maps.
        cfg["return_dict"] = kwargs.pop("feature_cls") == "dict"
        cfg["feature_cls"] = "hook"
    return cfg


def _last_maps(depth: object) -> int:
    """How many feature maps there are by default; the model refuses a depth that is no number."""
    return min(3, depth) if isinstance(depth, int) else 3


def _create_plain(name: str, pretrained: bool, **kwargs: Any) -> "V2M":
    from v2m.models.config import PLAIN
    from v2m.models.convert import checkpoint_filter_fn
    from v2m.models.plain import V2M
    from v2m.models.pyramid import STRIDES, SimpleFeaturePyramid

    # All four maps of a pyramid come from the last block, so the depth sets no limit to them.
    has_pyramid = kwargs.get("feature_cls") is SimpleFeaturePyramid
    maps = len(STRIDES) if has_pyramid else _last_maps(kwargs.get("depth", PLAIN[name].depth))
    return build_model_with_cfg(
        V2M,
        name,
        pretrained,
        config=PLAIN[name],
        pretrained_filter_fn=checkpoint_filter_fn,
        feature_cfg=_feature_cfg(kwargs, maps),
        **kwargs,
    )


def _create_hierarchical(name: str, pretrained: bool, **kwargs: Any) -> "HierarchicalV2M":
    from v2m.models.config import HIERARCHICAL
    from v2m.models.hierarchical import HierarchicalV2M

    return build_model_with_cfg(
        HierarchicalV2M,
        name,
        pretrained,
        config=HIERARCHICAL[name],
        pretrained_filter_fn=_check_weights,
        feature_cfg=_feature_cfg(kwargs, (0, 1, 2, 3)),
        **kwargs,
    )


def _check_weights(state_dict: dict[str, Tensor], model: "HierarchicalV2M") -> dict[str, Tensor]:
    """Pass a state dict on, if it is of the mixer and the decay rates of the model.

    Raises:
        ValueError: it is of what ``v2m`` was before and the model of what it is now, or has other rates.
    """
    from v2m.models.decay import check_decay

    check_decay(state_dict, model)
    if model.config.mixer == "v2m" and are_of_conv(state_dict):
        raise ValueError(
            "HierarchicalV2M: mixer is 'v2m', but these weights are of the mixer 'conv', which was called "
            "'v2m' before; give mixer='conv'"
        )
    return state_dict


def _entry_point(name: str) -> "Callable[..., V2M | HierarchicalV2M]":
    """What timm calls to create a model."""

    def create(pretrained: bool = False, **kwargs: Any) -> "V2M | HierarchicalV2M":
        build = _create_plain if name in PLAIN_ARGUMENTS else _create_hierarchical
        return build(name, pretrained, **todays_words(name, kwargs))

    create.__name__ = create.__qualname__ = name
    create.__doc__ = ABOUT[name]
    return create


for _name in MODELS:
    register_model(_entry_point(_name))
