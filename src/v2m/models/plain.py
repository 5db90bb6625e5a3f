"""Plain V2M: patch embedding, a stack of equal blocks on one grid, pooling, linear head.

Shapes: B batch, C embedding, H and W the grid's height and width; maps are channel-last ``[B, H, W, C]``.
"""

import math
from dataclasses import fields, replace
from difflib import get_close_matches
from typing import Any

import torch
from timm.layers import PatchEmbed, lecun_normal_, resample_abs_pos_embed_nhwc, to_2tuple, trunc_normal_
from timm.models._features import feature_take_indices
from timm.models._input import update_model_input_size
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from v2m.layers import ConvPatchEmbed, V2MBlock, V2MMixer
from v2m.models.config import V2MConfig


class V2M(nn.Module):
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

    default_cfg: dict[str, Any]
    """timm's default configuration, set by ``timm.create_model``."""

    def __init__(
        self,
        config: V2MConfig | None = None,
        *,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        **overrides: Any,
    ) -> None:
        super().__init__()
        _check_names(overrides)
        config = replace(config or V2MConfig(), **overrides)
        self.config = config
        self.in_chans = config.in_chans
        self.num_classes = config.num_classes
        self.global_pool = config.pool
        self.num_features = self.head_hidden_size = self.embed_dim = config.embed_dim
        self.grad_checkpointing = False

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

        drop_path_rates = torch.linspace(0, config.drop_path_rate, config.depth, device="cpu").tolist()
        self.blocks = nn.Sequential(
            *(V2MBlock(config.embed_dim, self._mixer(), rate) for rate in drop_path_rates)
        )
        reduction = max(to_2tuple(config.patch_size))
        self.feature_info = [
            dict(module=f"blocks.{i}", num_chs=config.embed_dim, reduction=reduction)
            for i in range(config.depth)
        ]
        self.norm: nn.Module = nn.RMSNorm(config.embed_dim, eps=1e-5)
        self.head_drop = nn.Dropout(config.drop_rate)
        self.head = self._head()
        self.init_weights()
        self.to(device=device, dtype=dtype)

    def _mixer(self) -> V2MMixer:
        config = self.config
        return V2MMixer(
            config.embed_dim, config.d_state, config.d_conv, config.expand, config.dt_rank, config.directions
        )

    def _head(self) -> nn.Module:
        return nn.Linear(self.embed_dim, self.num_classes) if self.num_classes > 0 else nn.Identity()

    def _grid_size(self) -> tuple[int, int]:
        return self.patch_embed.dynamic_feat_size(self.patch_embed.img_size)

    @torch.no_grad()
    def init_weights(self) -> None:
        """Initialise as the paper's code does, with both step size biases drawn from 0.001..0.1.

        Everything is set, so that it also serves a model that was built on the meta device.
        """
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Conv1d | nn.Conv2d | nn.BatchNorm2d | nn.RMSNorm):
                module.reset_parameters()
        for module in self.patch_embed.modules():
            if isinstance(module, nn.Conv2d):
                lecun_normal_(module.weight)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        for parameter in self.parameters(recurse=False):  # position embedding and class tokens
            trunc_normal_(parameter, std=0.02)
        for mixer in (module for module in self.modules() if isinstance(module, V2MMixer)):
            mixer.reset_scan_parameters()
            nn.init.kaiming_uniform_(mixer.out_proj.weight, a=math.sqrt(5))
            mixer.out_proj.weight.div_(math.sqrt(len(self.blocks)))
        if isinstance(self.head, nn.Linear):
            trunc_normal_(self.head.weight, std=0.02)
            nn.init.zeros_(self.head.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Class scores ``[B, num_classes]`` of images ``[B, in_chans, height, width]``."""
        return self.forward_head(self.forward_features(x))

    def forward_features(self, x: Tensor) -> Tensor:
        """Normalised tokens ``[B, H, W, C]``; with a class token ``[B, H + 1, W + 1, C]``."""
        return self._norm(self._run_blocks(self._embed(x), len(self.blocks), keep=[])[0])

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """Pool the output of ``forward_features`` and classify it, or only pool it if ``pre_logits``."""
        x = self.head_drop(self._pool(x))
        return x if pre_logits else self.head(x)

    def forward_intermediates(
        self,
        x: Tensor,
        indices: int | list[int] | None = None,
        norm: bool = False,
        stop_early: bool = False,
        output_fmt: str = "NCHW",
        intermediates_only: bool = False,
    ) -> list[Tensor] | tuple[Tensor, list[Tensor]]:
        """Feature maps after chosen blocks, class tokens left out.

        Args:
            x: Images ``[B, in_chans, height, width]``.
            indices: The last n blocks if a number, these blocks if a list, every block if None.
            norm: Apply the final norm to every map.
            stop_early: Do not run the blocks past the last index.
            output_fmt: ``"NCHW"`` or ``"NHWC"``.
            intermediates_only: Return the maps without the final tokens.

        Returns:
            The maps, or the output of ``forward_features`` (after the last block run) and the maps.
        """
        if output_fmt not in ("NCHW", "NHWC"):
            raise ValueError(
                f"forward_intermediates: output_fmt is {output_fmt!r}, expected 'NCHW' or 'NHWC'"
            )
        take, last = feature_take_indices(len(self.blocks), indices)
        x, kept = self._run_blocks(self._embed(x), last + 1 if stop_early else len(self.blocks), take)
        maps = [self._without_class_token(self._norm(kept[i]) if norm else kept[i]) for i in take]
        if output_fmt == "NCHW":
            maps = [m.permute(0, 3, 1, 2).contiguous() for m in maps]
        return maps if intermediates_only else (self._norm(x), maps)

    def _embed(self, x: Tensor) -> Tensor:
        if x.ndim != 4 or x.shape[1] != self.in_chans:
            raise ValueError(
                f"V2M: input has shape {list(x.shape)}, expected images [B, {self.in_chans}, H, W]"
            )
        if not x.is_floating_point():
            raise TypeError(f"V2M: input has dtype {x.dtype}, expected floating point (normalised images)")
        x = self.patch_embed(x)
        x = x.to(torch.promote_types(x.dtype, torch.float32))  # the residual stream's dtype
        if self.pos_embed is not None:
            x = x + resized(self.pos_embed, x.shape[1], x.shape[2])
        return self._with_class_token(x) if self.class_token else x

    def _run_blocks(self, x: Tensor, count: int, keep: list[int]) -> tuple[Tensor, dict[int, Tensor]]:
        """The output of the first ``count`` blocks, and of each block whose index is in ``keep``."""
        kept = {}
        for i, block in enumerate(self.blocks[:count]):
            if self.grad_checkpointing and torch.is_grad_enabled():
                x = checkpoint(block, x, use_reentrant=False)
            else:
                x = block(x)
            if i in keep:
                kept[i] = x
        return x, kept

    def _norm(self, x: Tensor) -> Tensor:
        return self.norm(x.to(self.norm.weight.dtype)) if isinstance(self.norm, nn.RMSNorm) else x

    def _pool(self, x: Tensor) -> Tensor:
        if self.global_pool == "token":
            i, j = self._crossing(x.shape[1] - 1, x.shape[2] - 1)
            return x[:, i, j]
        if not self.global_pool:
            return x
        x = self._without_class_token(x)
        return x.mean((1, 2)) if self.global_pool == "avg" else x.amax((1, 2))

    def _crossing(self, height: int, width: int) -> tuple[int, int]:
        """Where the learned row and column go in a grid of ``height`` x ``width`` patches."""
        return (height, width) if self.class_token == "edge" else (height // 2, width // 2)

    def _with_class_token(self, x: Tensor) -> Tensor:
        batch, height, width, _ = x.shape
        i, j = self._crossing(height, width)
        row, col = resized(self.cls_row, 1, width), resized(self.cls_col, height, 1)
        row = torch.cat([row[:, :, :j], self.cls_token, row[:, :, j:]], dim=2).expand(batch, -1, -1, -1)
        x = torch.cat([x[:, :, :j], col.expand(batch, -1, -1, -1), x[:, :, j:]], dim=2)
        return torch.cat([x[:, :i], row, x[:, i:]], dim=1)

    def _without_class_token(self, x: Tensor) -> Tensor:
        if not self.class_token:
            return x
        i, j = self._crossing(x.shape[1] - 1, x.shape[2] - 1)
        x = torch.cat([x[:, :i], x[:, i + 1 :]], dim=1)
        return torch.cat([x[:, :, :j], x[:, :, j + 1 :]], dim=2)

    def prune_intermediate_layers(
        self, indices: int | list[int] = 1, prune_norm: bool = False, prune_head: bool = True
    ) -> list[int]:
        """Remove what the chosen feature maps do not need; returns the indices kept."""
        take, last = feature_take_indices(len(self.blocks), indices)
        self.blocks = self.blocks[: last + 1]
        if prune_norm:
            self.norm = nn.Identity()
        if prune_head:
            self.reset_classifier(0, "")
        return take

    def get_classifier(self) -> nn.Module:
        """The head."""
        return self.head

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """Replace the head by a new one (none for 0 classes), and the pooling if given."""
        if global_pool is not None:
            pool: Any = global_pool
            self.global_pool = replace(self.config, global_pool=pool).pool
        self.num_classes = num_classes
        like = next(self.patch_embed.parameters())
        self.head = self._head().to(like.device, like.dtype)

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
        self.config = replace(
            self.config, img_size=self.patch_embed.img_size, patch_size=self.patch_embed.patch_size
        )
        for info in self.feature_info:
            info["reduction"] = max(self.patch_embed.patch_size)
        update_model_input_size(self, self.patch_embed.img_size, patch_size=patch_size)

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Recompute every block in the backward pass instead of keeping its activations."""
        self.grad_checkpointing = enable

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        """Regular expressions that sort parameters into stem and blocks, for layer-wise learning rates."""
        return dict(
            stem=r"^patch_embed|pos_embed|cls_",
            blocks=[(r"^blocks\.(\d+)", None), (r"^norm", (99999,))],
        )

    def no_weight_decay(self) -> set[str]:
        """Names of the parameters that take no weight decay, besides one-dimensional ones."""
        embeddings = {"pos_embed", "cls_token", "cls_row", "cls_col"}
        return {
            name
            for name, _ in self.named_parameters()
            if name in embeddings or name.endswith((".A_log", ".A_2_log", ".D", ".D_2"))
        }


def _check_names(overrides: dict[str, Any]) -> None:
    known = [field.name for field in fields(V2MConfig)]
    for name in overrides:
        if name not in known:
            nearest = get_close_matches(name, known, n=1)
            hint = f"the nearest is {nearest[0]!r}" if nearest else f"expected one of {', '.join(known)}"
            raise TypeError(f"V2M: no argument {name!r}, {hint}")


def resized(embedding: Tensor, height: int, width: int) -> Tensor:
    """A learned map ``[1, h, w, C]`` at another size, bicubic; itself where the size is right."""
    if embedding.shape[1:3] == (height, width):
        return embedding
    return resample_abs_pos_embed_nhwc(embedding, [height, width])


def _resized_parameter(embedding: nn.Parameter, height: int, width: int) -> nn.Parameter:
    return nn.Parameter(resized(embedding.detach(), height, width), requires_grad=embedding.requires_grad)
