"""Plain V2M: patch embedding, a stack of equal blocks on one grid, pooling, linear head.

Shapes: B batch, C embedding, H and W the grid's height and width; maps are channel-last ``[B, H, W, C]``.
"""

from dataclasses import replace
from typing import Any

import torch
import torch.fx
from timm.layers import PatchEmbed, resample_abs_pos_embed_nhwc, to_2tuple
from timm.models._input import update_model_input_size
from torch import Tensor, nn

from v2m.layers import ConvPatchEmbed, Stack, V2MBlock
from v2m.models.backbone import Backbone
from v2m.models.config import V2MConfig
from v2m.models.mixers import build_mixer


class V2M(Backbone[V2MConfig]):
    """Visual 2-Dimensional Mamba, plain family (arXiv:2410.10382), with timm's backbone contract.

    Images of any height and width are taken: the bottom and right are padded with zeros to whole patches, and
    the position embedding is resized to the grid. A class token is a whole learned row and column, read at
    their crossing; it takes part in the scans and is left out of feature maps.

    Args:
        config: The architecture; default ``V2MConfig()``.
        device: Device of the parameters.
        dtype: Data type of the parameters.
        overrides: Fields of ``V2MConfig`` that differ from ``config``.

    Raises:
        TypeError: an override is no field of ``V2MConfig``.
        ValueError: a value is out of range, or an image is not ``[B, in_chans, height, width]``.

    Example:
        >>> model = V2M(embed_dim=32, depth=2, num_classes=10)
        >>> model(torch.randn(1, 3, 96, 160)).shape
        torch.Size([1, 10])
    """

    stem_name, parts_name = "patch_embed", "blocks"

    def __init__(
        self,
        config: V2MConfig | None = None,
        *,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        **overrides: Any,
    ) -> None:
        super().__init__(V2MConfig(), config, overrides)
        config = self.config
        self.num_features = self.embed_dim = config.embed_dim

        patch_embed = ConvPatchEmbed if config.conv_stem else PatchEmbed
        self.patch_embed = patch_embed(
            img_size=config.img_size,
            patch_size=config.patch_size,
            in_chans=config.in_chans,
            embed_dim=config.embed_dim,
            output_fmt="NHWC",
            strict_img_size=False,
            dynamic_img_pad=True,
        )
        height, width = self._grid_size()
        self.pos_embed = (
            nn.Parameter(torch.empty(1, height, width, config.embed_dim)) if config.use_pos_embed else None
        )
        self.class_token = config.class_token
        if self.class_token:
            self.cls_token = nn.Parameter(torch.empty(1, 1, 1, config.embed_dim))
            self.cls_row = nn.Parameter(torch.empty(1, 1, width, config.embed_dim))
            self.cls_col = nn.Parameter(torch.empty(1, height, 1, config.embed_dim))

        blocks = []
        for i, rate in enumerate(self._drop_path_rates(config.depth)):
            is_last = i >= config.depth - config.attention_blocks
            mixer = build_mixer(config, config.embed_dim, i, use_attention=is_last)
            blocks.append(V2MBlock(config.embed_dim, mixer, rate))
        self.blocks = Stack(*blocks)
        reduction = max(to_2tuple(config.patch_size))
        self.feature_info = [
            dict(module=f"blocks.{i}", num_chs=config.embed_dim, reduction=reduction)
            for i in range(config.depth)
        ]
        self._finish(nn.RMSNorm(config.embed_dim, eps=1e-5), device, dtype)

    def _grid_size(self) -> tuple[int, int]:
        return self.patch_embed.dynamic_feat_size(self.patch_embed.img_size)

    def _embed(self, x: Tensor) -> Tensor:
        x = self._as_residual(self.patch_embed(x))
        if self.pos_embed is not None:
            x = x + resized(self.pos_embed, x.shape[1], x.shape[2])
        return self._with_class_token(x) if self.class_token else x

    def _pool(self, x: Tensor) -> Tensor:
        if self.global_pool == "token":
            i, j = self._crossing(x.shape[1] - 1, x.shape[2] - 1)  # of the grid without row and column
            return x[:, i, j]
        return super()._pool(x)

    def _crossing(self, height: int, width: int) -> tuple[int, int]:
        """Where the learned row and column go in a grid of ``height`` x ``width`` patches."""
        return (height, width) if self.class_token == "edge" else (height // 2, width // 2)

    def _with_class_token(self, x: Tensor) -> Tensor:
        batch, height, width, _ = x.shape
        i, j = self._crossing(height, width)
        row, col = resized(self.cls_row, 1, width), resized(self.cls_col, height, 1)
        # The column goes into the map, which is then as wide as the row with the token at the crossing.
        row = torch.cat([row[:, :, :j], self.cls_token, row[:, :, j:]], dim=2).expand(batch, -1, -1, -1)
        x = torch.cat([x[:, :, :j], col.expand(batch, -1, -1, -1), x[:, :, j:]], dim=2)
        return torch.cat([x[:, :i], row, x[:, i:]], dim=1)

    def _without_class_token(self, x: Tensor) -> Tensor:
        if not self.class_token:
            return x
        i, j = self._crossing(x.shape[1] - 1, x.shape[2] - 1)
        # Take out the row, then the column; the token goes with the row.
        x = torch.cat([x[:, :i], x[:, i + 1 :]], dim=1)
        return torch.cat([x[:, :, :j], x[:, :, j + 1 :]], dim=2)

    def set_input_size(
        self,
        img_size: int | tuple[int, int] | None = None,
        patch_size: int | tuple[int, int] | None = None,
    ) -> None:
        """Resize the position embedding (and class tokens, and patch kernel) for another input for good."""
        self.patch_embed.set_input_size(None if img_size is None else to_2tuple(img_size), patch_size)
        height, width = self._grid_size()
        if self.pos_embed is not None:
            self.pos_embed = _resized_parameter(self.pos_embed, height, width)
        if self.class_token:
            self.cls_row = _resized_parameter(self.cls_row, 1, width)
            self.cls_col = _resized_parameter(self.cls_col, height, 1)
        # What is saved with the model has to build it at this size.
        self.config = replace(
            self.config, img_size=self.patch_embed.img_size, patch_size=self.patch_embed.patch_size
        )
        for info in self.feature_info:
            info["reduction"] = max(self.patch_embed.patch_size)
        update_model_input_size(self, self.patch_embed.img_size, patch_size=patch_size)

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        """Regular expressions that sort parameters into stem and blocks, for layer-wise learning rates."""
        return dict(
            stem=r"^patch_embed|pos_embed|cls_",
            blocks=[(r"^blocks\.(\d+)", None), (r"^norm", (99999,))],
        )


@torch.fx.wrap
def resized(embedding: Tensor, height: int, width: int) -> Tensor:
    """A learned map ``[1, h, w, C]`` at another size, bicubic; itself where the size is right."""
    if embedding.shape[1:3] == (height, width):
        return embedding
    return resample_abs_pos_embed_nhwc(embedding, [height, width])


def _resized_parameter(embedding: nn.Parameter, height: int, width: int) -> nn.Parameter:
    return nn.Parameter(resized(embedding.detach(), height, width), requires_grad=embedding.requires_grad)
