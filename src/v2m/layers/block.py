"""The residual block of the plain family."""

import torch
from timm.layers import DropPath
from torch import Tensor, nn


class V2MBlock(nn.Module):
    """Pre-norm residual block without an MLP: ``x + drop_path(mixer(norm(x)))``.

    The residual stream keeps its own dtype (float32 in the models), whatever the mixer returns.

    Args:
        dim: Channels of the map.
        mixer: Module from ``[B, H, W, dim]`` to the same shape.
        drop_path: Probability of dropping the mixer's output, per sample.
    """

    def __init__(self, dim: int, mixer: nn.Module, drop_path: float = 0.0) -> None:
        super().__init__()
        self.norm = nn.RMSNorm(dim, eps=1e-5)
        self.mixer = mixer
        self.drop_path = DropPath(drop_path) if drop_path > 0 else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """Map ``[B, H, W, dim]`` to the same shape and dtype."""
        normed = self.norm(x.to(self.norm.weight.dtype))
        mixed: Tensor = self.drop_path(self.mixer(normed))
        return torch.add(x, mixed.to(x.dtype))
