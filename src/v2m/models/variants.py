"""The models by name: what each is, and its arguments. Nothing heavy is imported for them."""

from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import Any

PLAIN_ARGUMENTS: dict[str, dict[str, Any]] = {
    "v2m_nano": dict(img_size=32, patch_size=2, embed_dim=64, depth=4, d_state=8),
    "v2m_micro": dict(
        img_size=32,
        patch_size=4,
        embed_dim=128,
        depth=3,
        d_state=8,
        expand=1,
        directions="corners_rows_first",
        conv_stem=True,
    ),
    "v2m_tiny_patch16_224": dict(img_size=224, patch_size=16, embed_dim=192, depth=24),
    "v2m_tiny_local": dict(img_size=224, patch_size=16, embed_dim=192, depth=24, window=7),
    "v2m_small_patch16_224": dict(img_size=224, patch_size=16, embed_dim=384, depth=24),
    "v2m_small_local": dict(img_size=224, patch_size=16, embed_dim=384, depth=24, window=7),
}
"""Arguments of the plain family, in order of size: fields of ``V2MConfig``."""

HIERARCHICAL_ARGUMENTS: dict[str, dict[str, Any]] = {
    "v2m_lite_nano": dict(
        mixer="light",
        img_size=224,
        d_state=16,
        embed_dim=(32, 64, 96, 192),
        depths=(1, 1, 4, 1),
        mlp_ratio=3.0,
    ),
    "v2m_lite_tiny": dict(
        mixer="light",
        img_size=224,
        d_state=16,
        embed_dim=(32, 64, 128, 256),
        depths=(1, 1, 6, 2),
        mlp_ratio=3.0,
    ),
    "v2m_lite_small": dict(
        mixer="light",
        img_size=224,
        d_state=16,
        embed_dim=(32, 64, 192, 320),
        depths=(1, 1, 7, 2),
        mlp_ratio=3.0,
    ),
    "v2m_hierarchical_small": dict(mixer="conv", img_size=224, depths=(2, 2, 8, 2), expand=1),
    "v2m_hierarchical_base": dict(mixer="conv", img_size=224, depths=(2, 2, 15, 2), expand=2),
}
"""Arguments of the hierarchical family, in order of size: fields of ``HierarchicalV2MConfig``."""

MODELS = (*PLAIN_ARGUMENTS, *HIERARCHICAL_ARGUMENTS)
"""Names of the models of this package, each family in order of size."""

ABOUT = dict(
    v2m_nano="V2M for 8x8 to 64x64 images: depth 4, width 64, 2x2 patches.",
    v2m_micro=(
        "V2M for 28x28 to 128x128 images: depth 3, width 128, a convolutional stem for patches of 4x4."
    ),
    v2m_tiny_patch16_224="V2M-T of the paper: depth 24, width 192.",
    v2m_tiny_local="V2M-T with local windows: two corners of every block scan windows of 7x7 cells.",
    v2m_small_patch16_224="V2M-S of the paper: depth 24, width 384.",
    v2m_small_local="V2M-S with local windows: two corners of every block scan windows of 7x7 cells.",
    v2m_lite_nano="Light V2M for phones and CPUs: widths 32 to 192, depths 1-1-4-1.",
    v2m_lite_tiny="Light V2M for phones and CPUs: widths 32 to 256, depths 1-1-6-2.",
    v2m_lite_small="Light V2M for phones and CPUs: widths 32 to 320, depths 1-1-7-2.",
    v2m_hierarchical_small="V2M-S* of the paper: widths 96 to 768, depths 2-2-8-2.",
    v2m_hierarchical_base="V2M-B* of the paper: widths 96 to 768, depths 2-2-15-2, twice the inner channels.",
)
"""What each model is, in a line."""


def list_models(filter: str | Sequence[str] = "") -> list[str]:
    """Names of the models that this package registers with timm, each family in order of size.

    Args:
        filter: A pattern such as ``"*tiny*"``, or several of which a name matches one; all names by default.

    Example:
        >>> list_models("v2m_lite*")
        ['v2m_lite_nano', 'v2m_lite_tiny', 'v2m_lite_small']
    """
    patterns = [filter] if isinstance(filter, str) else filter
    return [name for name in MODELS if not filter or any(fnmatchcase(name, p) for p in patterns)]
