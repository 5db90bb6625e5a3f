"""The residual blocks of both families."""

import torch
from timm.layers import DropPath, Mlp
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from v2m.layers.common import cast_for
from v2m.ops.dispatch import as_now


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
        self.norm: nn.RMSNorm | nn.LayerNorm = nn.RMSNorm(dim, eps=1e-5)
        self.mixer = mixer
        self.drop_path = DropPath(drop_path) if drop_path > 0 else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """Map ``[B, H, W, dim]`` to the same shape and dtype."""
        return self._add(x, self.norm, self.mixer)

    def _add(self, x: Tensor, norm: nn.RMSNorm | nn.LayerNorm, branch: nn.Module) -> Tensor:
        # A branch may compute in a low precision; the sum over many blocks must not.
        mixed: Tensor = self.drop_path(branch(norm(cast_for(norm, x))))
        return torch.add(x, mixed.to(x.dtype))


class V2MMlpBlock(V2MBlock):
    """The same with layer norms, and a second residual branch, ``x + drop_path(mlp(norm(x)))``.

    Args:
        dim: Channels of the map.
        mixer: Module from ``[B, H, W, dim]`` to the same shape.
        drop_path: Probability of dropping a branch, per sample.
        mlp_ratio: Hidden channels of the MLP as a multiple of ``dim``.
    """

    def __init__(self, dim: int, mixer: nn.Module, drop_path: float = 0.0, mlp_ratio: float = 4.0) -> None:
        super().__init__(dim, mixer, drop_path)
        self.norm = nn.LayerNorm(dim)
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = Mlp(dim, int(mlp_ratio * dim))

    def forward(self, x: Tensor) -> Tensor:
        """Map ``[B, H, W, dim]`` to the same shape and dtype."""
        return self._add(super().forward(x), self.norm2, self.mlp)


class Stack(nn.Sequential):
    """Blocks one after the other; with ``grad_checkpointing`` each is computed again in the backward pass."""

    grad_checkpointing = False

    def forward(self, x: Tensor) -> Tensor:
        """Run all of them."""
        for block in self:
            x = self.run(block, x)
        return x

    def run(self, block: nn.Module, x: Tensor) -> Tensor:
        """Run one of them."""
        if not (self.grad_checkpointing and torch.is_grad_enabled()):
            return block(x)
        if torch.compiler.is_compiling():  # the graph has the choice of implementations in it
            return checkpoint(block, x, use_reentrant=False)
        return checkpoint(block, x, use_reentrant=False, context_fn=as_now)
