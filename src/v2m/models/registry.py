"""Registration with timm: after ``import v2m``, ``timm.create_model`` knows these names."""

from typing import Any

from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from timm.models import build_model_with_cfg, generate_default_cfgs, register_model

from v2m.models.config import PLAIN
from v2m.models.convert import checkpoint_filter_fn
from v2m.models.plain import V2M


def _cfg(size: int, crop_pct: float) -> dict[str, Any]:
    return dict(
        url="",
        num_classes=1000,
        input_size=(3, size, size),
        pool_size=None,
        crop_pct=crop_pct,
        interpolation="bicubic",
        fixed_input_size=False,
        mean=IMAGENET_DEFAULT_MEAN,
        std=IMAGENET_DEFAULT_STD,
        first_conv="patch_embed.proj",
        classifier="head",
        license="apache-2.0",
        paper_ids="arXiv:2410.10382",
        paper_name="V2M: Visual 2-Dimensional Mamba for Image Representation Learning",
    )


default_cfgs = generate_default_cfgs(
    {
        "v2m_nano.untrained": _cfg(32, crop_pct=1.0),
        "v2m_micro.untrained": _cfg(32, crop_pct=1.0) | dict(first_conv="patch_embed.proj.0.conv"),
        "v2m_tiny_patch16_224.untrained": _cfg(224, crop_pct=0.875),
        "v2m_small_patch16_224.untrained": _cfg(224, crop_pct=0.875),
    }
)


def _create_plain(variant: str, pretrained: bool, **kwargs: Any) -> V2M:
    last_blocks = min(3, kwargs.get("depth", PLAIN[variant].depth))
    return build_model_with_cfg(
        V2M,
        variant,
        pretrained,
        config=PLAIN[variant],
        pretrained_filter_fn=checkpoint_filter_fn,
        feature_cfg=dict(out_indices=kwargs.pop("out_indices", last_blocks), feature_cls="getter"),
        **kwargs,
    )


@register_model
def v2m_nano(pretrained: bool = False, **kwargs: Any) -> V2M:
    """V2M for 8x8 to 64x64 images: depth 4, width 64, 2x2 patches."""
    return _create_plain("v2m_nano", pretrained, **kwargs)


@register_model
def v2m_micro(pretrained: bool = False, **kwargs: Any) -> V2M:
    """V2M for 28x28 to 128x128 images: depth 3, width 128, a convolutional stem for patches of 4x4."""
    return _create_plain("v2m_micro", pretrained, **kwargs)


@register_model
def v2m_tiny_patch16_224(pretrained: bool = False, **kwargs: Any) -> V2M:
    """V2M-T of the paper: depth 24, width 192."""
    return _create_plain("v2m_tiny_patch16_224", pretrained, **kwargs)


@register_model
def v2m_small_patch16_224(pretrained: bool = False, **kwargs: Any) -> V2M:
    """V2M-S of the paper: depth 24, width 384."""
    return _create_plain("v2m_small_patch16_224", pretrained, **kwargs)


MODELS = tuple(PLAIN)
"""Names of the models of this package, in order of size."""
