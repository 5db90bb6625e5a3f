"""Self-attention as a token mixer.

Shapes: B batch, H grid height, W grid width, C channels.
"""

from timm.layers import Attention, register_notrace_module
from torch import Tensor, nn

from v2m.layers.common import check_map, check_sizes
from v2m.layers.mixers.base import Mixer


@register_notrace_module  # what it does depends on shapes
class AttentionMixer(Mixer):
    """Mix the tokens of a map by multi-head self-attention (arXiv:2010.11929, equation 2), timm's.

    Every cell attends to every cell. Nothing tells where a cell lies: positions come from outside.

    Args:
        dim: See ``Mixer``.
        num_heads: Number of heads, a divisor of ``dim``; None for the largest one that leaves
            at least 32 channels to a head, else 1.

    Example:
        >>> import torch
        >>> AttentionMixer(64)(torch.randn(2, 5, 7, 64)).shape
        torch.Size([2, 5, 7, 64])
    """

    def __init__(self, dim: int, num_heads: int | None = None) -> None:
        super().__init__()
        check_sizes("AttentionMixer", dim=dim)
        if num_heads is None:
            num_heads = next(n for n in range(max(dim // 32, 1), 0, -1) if dim % n == 0)
        check_sizes("AttentionMixer", num_heads=num_heads)
        if dim % num_heads:
            raise ValueError(f"AttentionMixer: num_heads is {num_heads}, expected a divisor of dim = {dim}")
        self.dim = dim
        self.attn = Attention(dim, num_heads, qkv_bias=True)

    @property
    def out_proj(self) -> nn.Linear:  # type: ignore[override]
        """The last projection, as the other mixers call it."""
        return self.attn.proj

    def reset_scan_parameters(self) -> None:
        """Do nothing: there is no scan."""

    def forward(self, x: Tensor) -> Tensor:
        """Mix a map ``[B, H, W, C]`` into a map of the same shape."""
        check_map("AttentionMixer", x, self.dim)
        return self.attn(x.flatten(1, 2)).view(x.shape)
