"""Hierarchical V2M: a convolutional stem, four stages of blocks with MLPs, pooling, linear head.

Shapes: B batch, C channels, H and W height and width of a map; maps are channel-last ``[B, H, W, C]``.
"""

from dataclasses import replace
from itertools import islice
from typing import Any

import torch
from timm.layers import to_2tuple
from timm.models._input import update_model_input_size
from torch import Tensor, nn

from v2m.layers import Stack, V2MMlpBlock
from v2m.layers.common import cast_for
from v2m.models.backbone import Backbone
from v2m.models.config import HierarchicalV2MConfig
from v2m.models.mixers import build_mixer


class HierarchicalV2M(Backbone[HierarchicalV2MConfig]):
    """Visual 2-Dimensional Mamba in four stages (arXiv:2410.10382, V2M-S* and V2M-B*), a timm backbone.

    Strides 4, 8, 16 and 32 after the stages, as in convolutional networks, with V2M's scan in the place of
    VMamba's (arXiv:2401.10166). Images of any height and width are taken; a map has sides of ``ceil(image
    side / stride)`` cells. There is no position embedding.

    Args:
        config: The architecture; default ``HierarchicalV2MConfig()``.
        device: Device of the parameters.
        dtype: Data type of the parameters.
        overrides: Fields of ``HierarchicalV2MConfig`` that differ from ``config``.

    Raises:
        TypeError: an override is no field of ``HierarchicalV2MConfig``.
        ValueError: a value is out of range, or an image is not ``[B, in_chans, height, width]``.

    Example:
        >>> model = HierarchicalV2M(embed_dim=(8, 16, 24, 32), depths=(1, 1, 1, 1), num_classes=10)
        >>> model(torch.randn(1, 3, 50, 70)).shape
        torch.Size([1, 10])
    """

    stem_name, parts_name = "stem", "stages"

    def __init__(
        self,
        config: HierarchicalV2MConfig | None = None,
        *,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        **overrides: Any,
    ) -> None:
        super().__init__(HierarchicalV2MConfig(), config, overrides)
        config = self.config
        widths = config.embed_dim
        self.num_features = widths[-1]
        self.stem = nn.Sequential(
            _Halve(config.in_chans, max(1, widths[0] // 2), nn.GELU()),
            _Halve(max(1, widths[0] // 2), widths[0]),
        )
        # One iterator over all stages: drop-path rates and block indices run through the whole model.
        rates = enumerate(self._drop_path_rates(sum(config.depths)))
        stages = []
        for i, (width, depth) in enumerate(zip(widths, config.depths, strict=True)):
            is_last = i >= len(config.depths) - config.attention_stages
            modules: list[nn.Module] = [_Halve(widths[i - 1], width)] if i else []
            for index, rate in islice(rates, depth):
                mixer = build_mixer(config, width, index, use_attention=is_last)
                modules.append(V2MMlpBlock(width, mixer, rate, config.mlp_ratio))
            stages.append(Stack(*modules))
        self.stages = nn.Sequential(*stages)
        self.feature_info = [
            dict(module=f"stages.{i}", num_chs=width, reduction=4 * 2**i) for i, width in enumerate(widths)
        ]
        self._finish(nn.LayerNorm(widths[-1]), device, dtype)

    def _embed(self, x: Tensor) -> Tensor:
        # The stem's modules work on channel-last maps, as the blocks do.
        return self._as_residual(self.stem(x.permute(0, 2, 3, 1)))

    def set_input_size(self, img_size: int | tuple[int, int]) -> None:
        """Note another image size; no parameter depends on it."""
        self.config = replace(self.config, img_size=img_size)
        update_model_input_size(self, to_2tuple(img_size))

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        """Regular expressions that sort parameters into stem and blocks, for layer-wise learning rates."""
        blocks = r"^stages\.(\d+)" if coarse else r"^stages\.(\d+)\.(\d+)"
        return dict(stem=r"^stem", blocks=[(blocks, None), (r"^norm", (99999,))])


class _Halve(nn.Module):
    """A 3x3 convolution of stride 2, a layer norm and an activation, on channel-last maps."""

    def __init__(self, in_channels: int, channels: int, activation: nn.Module | None = None) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, channels, 3, stride=2, padding=1)
        self.norm = nn.LayerNorm(channels)
        self.activation = activation or nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(cast_for(self.conv, x).permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        return self.activation(self.norm(cast_for(self.norm, x)))
