"""The learned parameters of a selective scan: what they start from, and the decay rates they stand for.

Shapes: D channels, N state size, R rank of the step size.
"""

import math
from enum import Enum
from typing import Literal

import torch
from torch import Tensor, nn

from v2m.layers.common import is_size

DT_MIN, DT_MAX, DT_FLOOR = 1e-3, 1e-1, 1e-4


class Decay(str, Enum):
    """What is learned of the decay rates of a channel, ``-A[d, n]`` for state n from 0."""

    FREE = "free"
    """Every rate: ``exp(A_log[d, n])``."""

    GEOMETRIC = "geometric"
    """One number: ``(n + 1) * exp(A_log[d])``. The decays are powers of one exponential, which is cheaper."""

    def empty_rates(self, channels: int, d_state: int) -> nn.Parameter:
        """A parameter for the logarithm of the rates, not initialised: ``[D, N]``, geometric ``[D]``."""
        return nn.Parameter(torch.empty((channels, d_state) if self is Decay.FREE else channels))


def resolve_rank(owner: str, dim: int, dt_rank: int | Literal["auto"]) -> int:
    """The rank R of a step size projection: ``ceil(dim / 16)`` for ``"auto"``.

    Raises:
        ValueError: ``dt_rank`` is neither ``"auto"`` nor a positive integer.
    """
    rank = math.ceil(dim / 16) if dt_rank == "auto" else dt_rank
    if not is_size(rank):
        raise ValueError(f"{owner}: dt_rank is {rank!r}, expected a positive integer or 'auto'")
    return rank


@torch.no_grad()
def reset_scan(A_log: Tensor, D: Tensor, dt_proj: nn.Linear) -> None:
    """Set A to -1..-N, D to 1, and the step sizes to 0.001 to 0.1 cells, log-uniform.

    Args:
        A_log: Logarithm of the rates ``-A``, ``[D, N]``; where they are geometric, of the first, ``[D]``.
        D: Skip, ``[D]``.
        dt_proj: Projection of the step sizes from R to D channels, with a bias.
    """
    rank = dt_proj.in_features
    if A_log.ndim == 1:
        A_log.zero_()
    else:
        A_log.copy_(initial_log_rates(A_log.shape[1]))
    D.fill_(1.0)
    nn.init.uniform_(dt_proj.weight, -(rank**-0.5), rank**-0.5)
    steps = log_uniform_like(D, DT_MIN, DT_MAX).clamp(min=DT_FLOOR)
    dt_proj.bias.copy_(inverse_softplus(steps))


def initial_log_rates(d_state: int) -> Tensor:
    """The logarithm of the rates 1..N of a new channel, ``[N]``."""
    return torch.arange(1, d_state + 1).log()


def log_uniform_like(x: Tensor, low: float, high: float) -> Tensor:
    """Random numbers of the shape of ``x`` whose logarithm is uniform between those of two bounds."""
    return torch.empty_like(x).uniform_(math.log(low), math.log(high)).exp()


def inverse_softplus(steps: Tensor) -> Tensor:
    """What softplus maps to positive ``steps``: ``log(exp(steps) - 1)``, also exact where they are small."""
    return steps + torch.log(-torch.expm1(-steps))


def decay_rates(A_log: Tensor) -> Tensor:
    """``A = -exp(A_log)``, in float32 at least: ``[D, N]``, or ``[D]``, which operators take as geometric."""
    return -torch.exp(A_log if A_log.dtype == torch.float64 else A_log.float())
