"""Feature maps of several sizes from a model that has one."""

import math
from collections.abc import Sequence
from typing import Any

from timm.layers import LayerNorm2d, to_2tuple
from timm.models import FeatureInfo
from torch import Tensor, nn

from v2m.models.plain import V2M

STRIDES = (4, 8, 16, 32)


class SimpleFeaturePyramid(nn.Module):
    """The simple feature pyramid of ViTDet (arXiv:2203.16527): the last map of a plain model, scaled.

    Give it to timm as a feature class; the maps have strides 4, 8, 16 and 32, of a detector or a decoder::

        timm.create_model("v2m_tiny_patch16_224", features_only=True, feature_cls=SimpleFeaturePyramid)

    A doubling is a transposed convolution, after which half the channels are left, a halving is a maximum
    over 2x2 cells. A map has sides of ``ceil(image side / stride)`` cells at least. The transposed
    convolutions are new parameters, to be trained.

    Args:
        model: A plain model with square patches, of a power of two pixels up to 32.
        out_indices: Which of the four maps to return; negative ones count from the last.
        out_map: Ignored; timm gives it to every feature class.
        output_fmt: Ignored; maps are ``[B, channels, H, W]``.

    Raises:
        ValueError: the model is not plain, or its patches or ``out_indices`` do not fit.
    """

    def __init__(
        self,
        model: V2M,
        out_indices: int | Sequence[int] = (0, 1, 2, 3),
        out_map: Any = None,
        output_fmt: Any = None,
    ) -> None:
        super().__init__()
        if not isinstance(model, V2M):
            raise ValueError(
                f"SimpleFeaturePyramid: model is {type(model).__name__}, expected a plain V2M; hierarchical "
                "models have these strides without it"
            )
        patch, other = to_2tuple(model.config.patch_size)
        if patch != other or patch not in (1, 2, 4, 8, 16, 32):
            raise ValueError(
                f"SimpleFeaturePyramid: patch_size is {model.config.patch_size!r}, expected a power of two "
                "up to 32 for both sides"
            )
        wanted = range(-out_indices, 0) if isinstance(out_indices, int) else out_indices
        if not all(-len(STRIDES) <= i < len(STRIDES) for i in wanted):
            raise ValueError(f"SimpleFeaturePyramid: out_indices is {out_indices!r}, expected some of 0 to 3")
        self.out_indices = tuple(i % len(STRIDES) for i in wanted)  # negative ones from the end
        model.prune_intermediate_layers(1, prune_norm=False)  # the last map is read after the norm
        self.model = model
        scales: list[nn.Module] = []
        info: list[dict[str, Any]] = []
        for stride in (STRIDES[i] for i in self.out_indices):
            layers, channels = _scale(model.num_features, round(math.log2(patch / stride)))
            scales.append(nn.Sequential(*layers))
            info.append(dict(num_chs=channels, reduction=stride, module=f"scales.{len(info)}"))
        self.scales = nn.ModuleList(scales)
        self.feature_info = FeatureInfo(info, tuple(range(len(info))))

    def forward(self, x: Tensor) -> list[Tensor]:
        """Maps ``[B, channels, H, W]`` of images ``[B, in_chans, height, width]``."""
        maps = self.model.forward_intermediates(x, indices=1, norm=True, intermediates_only=True)
        return [scale(maps[0]) for scale in self.scales]


def _scale(channels: int, doublings: int) -> tuple[list[nn.Module], int]:
    """Layers that scale the sides of a map, and the channels after them.

    Args:
        channels: Channels of the map.
        doublings: How often the sides are doubled; halved where it is negative.
    """
    if doublings <= 0:
        return [nn.MaxPool2d(2, ceil_mode=True) for _ in range(-doublings)], channels
    layers: list[nn.Module] = []
    for i in range(doublings):
        layers += [LayerNorm2d(channels), nn.GELU()] if i else []
        layers.append(nn.ConvTranspose2d(channels, channels // 2, 2, stride=2))
        channels //= 2
    return layers, channels
