"""Registration with timm: after ``import v2m``, ``timm.create_model`` knows these names."""

from typing import Any

from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from timm.models import build_model_with_cfg, generate_default_cfgs, register_model

from v2m.models.config import HIERARCHICAL, PLAIN
from v2m.models.convert import checkpoint_filter_fn
from v2m.models.hierarchical import HierarchicalV2M
from v2m.models.plain import V2M
from v2m.models.pyramid import STRIDES, SimpleFeaturePyramid


def _cfg(size: int, stride: int, crop_pct: float, first_conv: str = "patch_embed.proj") -> dict[str, Any]:
    return dict(
        url="",
        num_classes=1000,
        input_size=(3, size, size),
        pool_size=(size // stride, size // stride),
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


default_cfgs = generate_default_cfgs(
    {
        "v2m_nano.untrained": _cfg(32, 2, crop_pct=1.0),
        "v2m_micro.untrained": _cfg(32, 4, crop_pct=1.0, first_conv="patch_embed.proj.0.conv"),
    }
    | {f"{name}.untrained": _cfg(224, 16, 0.875) for name in PLAIN if name not in ("v2m_nano", "v2m_micro")}
    | {f"{name}.untrained": _cfg(224, 32, 0.9, first_conv="stem.0.conv") for name in HIERARCHICAL}
)


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


def _create_plain(variant: str, pretrained: bool, **kwargs: Any) -> V2M:
    has_pyramid = kwargs.get("feature_cls") is SimpleFeaturePyramid
    maps = len(STRIDES) if has_pyramid else _last_maps(kwargs.get("depth", PLAIN[variant].depth))
    return build_model_with_cfg(
        V2M,
        variant,
        pretrained,
        config=PLAIN[variant],
        pretrained_filter_fn=checkpoint_filter_fn,
        feature_cfg=_feature_cfg(kwargs, maps),
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


@register_model
def v2m_tiny_local(pretrained: bool = False, **kwargs: Any) -> V2M:
    """V2M-T with local windows: two corners of every block scan windows of 7x7 cells."""
    return _create_plain("v2m_tiny_local", pretrained, **kwargs)


@register_model
def v2m_small_local(pretrained: bool = False, **kwargs: Any) -> V2M:
    """V2M-S with local windows: two corners of every block scan windows of 7x7 cells."""
    return _create_plain("v2m_small_local", pretrained, **kwargs)


def _create_hierarchical(variant: str, pretrained: bool, **kwargs: Any) -> HierarchicalV2M:
    return build_model_with_cfg(
        HierarchicalV2M,
        variant,
        pretrained,
        config=HIERARCHICAL[variant],
        feature_cfg=_feature_cfg(kwargs, (0, 1, 2, 3)),
        **kwargs,
    )


@register_model
def v2m_lite_nano(pretrained: bool = False, **kwargs: Any) -> HierarchicalV2M:
    """Light V2M for phones and CPUs: widths 32 to 192, depths 1-1-4-1."""
    return _create_hierarchical("v2m_lite_nano", pretrained, **kwargs)


@register_model
def v2m_lite_tiny(pretrained: bool = False, **kwargs: Any) -> HierarchicalV2M:
    """Light V2M for phones and CPUs: widths 32 to 256, depths 1-1-6-2."""
    return _create_hierarchical("v2m_lite_tiny", pretrained, **kwargs)


@register_model
def v2m_lite_small(pretrained: bool = False, **kwargs: Any) -> HierarchicalV2M:
    """Light V2M for phones and CPUs: widths 32 to 320, depths 1-1-7-2."""
    return _create_hierarchical("v2m_lite_small", pretrained, **kwargs)


@register_model
def v2m_hierarchical_small(pretrained: bool = False, **kwargs: Any) -> HierarchicalV2M:
    """V2M-S* of the paper: widths 96 to 768, depths 2-2-8-2."""
    return _create_hierarchical("v2m_hierarchical_small", pretrained, **kwargs)


@register_model
def v2m_hierarchical_base(pretrained: bool = False, **kwargs: Any) -> HierarchicalV2M:
    """V2M-B* of the paper: widths 96 to 768, depths 2-2-15-2, twice the inner channels."""
    return _create_hierarchical("v2m_hierarchical_base", pretrained, **kwargs)


MODELS = (*PLAIN, *HIERARCHICAL)
"""Names of the models of this package, each family in order of size."""
