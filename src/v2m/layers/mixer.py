"""The V2M token mixer.

Shapes: B batch, H grid height, W grid width, C embedding, D = expand * C inner channels, N state size,
R rank of the step size.
"""

import math
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from functools import reduce
from typing import Literal, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from v2m.layers.directions import Directions, Scan
from v2m.ops import directional_pass

DT_MIN, DT_MAX, DT_FLOOR = 1e-3, 1e-1, 1e-4


class V2MMixer(nn.Module):
    """Mix the tokens of a map by selective scans in two dimensions from four corners.

    V2M (arXiv:2410.10382, section 3.2), with ``x, z = in_proj(input)``. For each path::

        pass 1  s = silu(conv1d(x));     delta, B = x_proj(s);    u = scan(s, delta, A, B, C=1)   * silu(z)
        pass 2  s = silu(conv1d_2(u));   delta, C = x_proj_2(s);  v = scan(s, delta, A_2, B=1, C) * silu(z)

    where the scans add a skip and ``delta`` goes through ``dt_proj`` and softplus. The output is
    ``out_proj(sum of v over the four paths / 2)``. Parameter names and shapes are those of the released code.

    Under autocast, ``in_proj`` and ``out_proj`` run in the low precision and everything between them in the
    dtype of the parameters; the state and the decay are float32 at least in any case.

    Args:
        dim: Channels C of input and output.
        d_state: State size N of each channel.
        d_conv: Length of the causal depthwise convolutions.
        expand: Inner channels D as a multiple of ``dim``.
        dt_rank: Rank R of the step size projection, or ``"auto"`` for ``ceil(dim / 16)``.
        directions: ``"corners"`` (the paper), ``"corners_rows_first"`` (cheaper, another function) or
            ``"released"`` (the released code's numbers; square grids only).

    Raises:
        ValueError: an argument is out of range, or an input is not ``[B, H, W, C]``.

    Example:
        >>> V2MMixer(32)(torch.randn(2, 5, 7, 32)).shape
        torch.Size([2, 5, 7, 32])
    """

    def __init__(
        self,
        dim: int,
        d_state: int = 16,
        d_conv: int = 4,
        expand: int = 2,
        dt_rank: int | Literal["auto"] = "auto",
        directions: Directions | str = Directions.CORNERS,
    ) -> None:
        super().__init__()
        rank = math.ceil(dim / 16) if dt_rank == "auto" else dt_rank
        for name, value in dict(dim=dim, d_state=d_state, d_conv=d_conv, expand=expand, dt_rank=rank).items():
            if not isinstance(value, int) or value < 1:
                raise ValueError(f"V2MMixer: {name} is {value!r}, expected a positive integer")
        try:
            self.directions = Directions(directions)
        except ValueError:
            choices = ", ".join(repr(d.value) for d in Directions)
            raise ValueError(f"V2MMixer: directions is {directions!r}, expected one of {choices}") from None
        self.dim, self.d_state, self.d_conv, self.dt_rank = dim, d_state, d_conv, rank
        inner = expand * dim

        self.in_proj = nn.Linear(dim, 2 * inner, bias=False)
        self.conv1d = nn.Conv1d(inner, inner, d_conv, groups=inner)
        self.x_proj = nn.Linear(inner, rank + d_state, bias=False)
        self.dt_proj = nn.Linear(rank, inner)
        self.A_log = nn.Parameter(torch.empty(inner, d_state))
        self.D = nn.Parameter(torch.empty(inner))
        self.conv1d_2 = nn.Conv1d(inner, inner, d_conv, groups=inner)
        self.x_proj_2 = nn.Linear(inner, rank + d_state, bias=False)
        self.dt_proj_2 = nn.Linear(rank, inner)
        self.A_2_log = nn.Parameter(torch.empty(inner, d_state))
        self.D_2 = nn.Parameter(torch.empty(inner))
        self.out_proj = nn.Linear(inner, dim, bias=False)
        self.reset_scan_parameters()

    @torch.no_grad()
    def reset_scan_parameters(self) -> None:
        """Initialise rates, skips and step sizes: A = -1..-N, D = 1, steps from 0.001 to 0.1 cells."""
        for A_log, D, dt_proj in (
            (self.A_log, self.D, self.dt_proj),
            (self.A_2_log, self.D_2, self.dt_proj_2),
        ):
            A_log.copy_(torch.arange(1, self.d_state + 1).log().expand_as(A_log))
            D.fill_(1.0)
            nn.init.uniform_(dt_proj.weight, -(self.dt_rank**-0.5), self.dt_rank**-0.5)
            dt = torch.empty_like(D).uniform_(math.log(DT_MIN), math.log(DT_MAX)).exp().clamp(min=DT_FLOOR)
            dt_proj.bias.copy_(dt + torch.log(-torch.expm1(-dt)))

    def forward(self, x: Tensor) -> Tensor:
        """Mix a map ``[B, H, W, C]`` into a map of the same shape."""
        if x.ndim != 4 or x.shape[-1] != self.dim:
            raise ValueError(f"V2MMixer: input has shape {list(x.shape)}, expected [B, H, W, {self.dim}]")
        if self.directions is Directions.RELEASED and x.shape[1] != x.shape[2]:
            raise ValueError(
                f"V2MMixer: input has a {x.shape[1]}x{x.shape[2]} grid, expected a square one with "
                "directions='released'; the other directions take any grid"
            )
        x, z = self.in_proj(x).to(self.A_log.dtype).chunk(2, dim=-1)
        with _autocast_disabled(x.device):
            y = reduce(Tensor.add_, self._results(x, F.silu(z)))
        return self.out_proj(y / 2)

    def _results(self, x: Tensor, gate: Tensor) -> Iterator[Tensor]:
        first = _pass_parameters(self.conv1d, self.x_proj, self.dt_proj, self.A_log, self.D)
        second = _pass_parameters(self.conv1d_2, self.x_proj_2, self.dt_proj_2, self.A_2_log, self.D_2)
        first_passes: dict[Scan, Tensor] = {}
        for path in self.directions.paths:
            if path.first not in first_passes:
                first_passes[path.first] = directional_pass(
                    x, gate, *first, selects="B", axis=path.first.axis, reverse=path.first.reverse
                )
            u = first_passes[path.first]
            yield path.place(
                directional_pass(
                    u, gate, *second, selects="C", axis=path.second.axis, reverse=path.second.reverse
                )
            )

    def extra_repr(self) -> str:
        """Show the settings that the submodules do not."""
        return f"d_state={self.d_state}, dt_rank={self.dt_rank}, directions={self.directions.value!r}"


def _pass_parameters(
    conv: nn.Conv1d, x_proj: nn.Linear, dt_proj: nn.Linear, A_log: Tensor, D: Tensor
) -> tuple[Tensor, ...]:
    """What ``directional_pass`` takes after the maps; the same for every direction."""
    conv_weight, conv_bias = conv.weight.squeeze(1), cast(Tensor, conv.bias)
    return conv_weight, conv_bias, x_proj.weight, dt_proj.weight, dt_proj.bias, _decay_rates(A_log), D


def _decay_rates(A_log: Tensor) -> Tensor:
    return -torch.exp(A_log if A_log.dtype == torch.float64 else A_log.float())


def _autocast_disabled(device: torch.device) -> AbstractContextManager[object]:
    if torch.amp.is_autocast_available(device.type):
        return torch.autocast(device.type, enabled=False)
    return nullcontext()
