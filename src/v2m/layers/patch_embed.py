"""Patch embedding by a few small convolutions instead of one large one."""

from itertools import pairwise
from typing import Any, cast

import torch
from timm.layers import ConvNormAct, PatchEmbed, SeparableConvNormAct, to_2tuple
from torch import Tensor, nn


class ConvPatchEmbed(PatchEmbed):
    """Patch embedding by pairs of 3x3 convolutions, the first of each halving the map.

    All but the very first are depthwise separable. Patches overlap, which helps where images are small.

    Args:
        patch_size: Height and width of a patch: one power of two from 2 for both.
        in_chans: Image channels.
        embed_dim: Channels of the output; the convolutions before have half of them, a quarter, and so on.
        kwargs: Other arguments of timm's ``PatchEmbed``.

    Raises:
        ValueError: ``patch_size`` or ``embed_dim`` does not fit.
    """

    def __init__(
        self, patch_size: int | tuple[int, int], in_chans: int, embed_dim: int, **kwargs: Any
    ) -> None:
        super().__init__(patch_size=patch_size, in_chans=in_chans, embed_dim=embed_dim, **kwargs)
        height, width = to_2tuple(patch_size)
        halvings = height.bit_length() - 1
        if height != width or halvings < 1 or height != 2**halvings:
            raise ValueError(
                f"ConvPatchEmbed: patch_size is {patch_size!r}, expected a power of two from 2 for both sides"
            )
        # Channels double as the sides halve, and end at embed_dim.
        widths = [embed_dim >> i for i in reversed(range(halvings))]
        if widths[0] < 1:
            raise ValueError(
                f"ConvPatchEmbed: embed_dim is {embed_dim}, expected at least {2 ** (halvings - 1)}"
            )
        layers: list[nn.Module] = [ConvNormAct(in_chans, widths[0], 3, stride=2, act_layer=nn.SiLU)]
        for before, after in pairwise(widths):
            layers.append(SeparableConvNormAct(before, before, 3, act_layer=nn.SiLU))
            layers.append(SeparableConvNormAct(before, after, 3, stride=2, act_layer=nn.SiLU))
        layers.append(SeparableConvNormAct(embed_dim, embed_dim, 3, act_layer=nn.SiLU))
        # The last convolution has no norm or activation: the residual stream starts with any numbers.
        self.proj = nn.Sequential(*layers, nn.Conv2d(embed_dim, embed_dim, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Embed images ``[B, in_chans, H, W]`` as ``PatchEmbed`` does."""
        # Convolutions of few channels are a third faster so, and the model wants channels last anyway.
        return cast(Tensor, super().forward(x.contiguous(memory_format=torch.channels_last)))

    def set_input_size(
        self,
        img_size: int | tuple[int, int] | None = None,
        patch_size: int | tuple[int, int] | None = None,
    ) -> None:
        """Set the size of images; that of the patches is fixed.

        Raises:
            ValueError: another ``patch_size`` is asked for.
        """
        if patch_size is not None and to_2tuple(patch_size) != self.patch_size:
            raise ValueError(
                f"ConvPatchEmbed: patch_size is {patch_size!r}, expected {self.patch_size}, which is fixed"
            )
        super().set_input_size(img_size=img_size)
