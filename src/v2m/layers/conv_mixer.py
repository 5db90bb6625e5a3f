"""The mixer with one two-dimensional convolution before its scans, for every recurrence.

Shapes: B batch, H grid height, W grid width, C embedding, D = expand * C inner channels, N state size,
R rank of the step size.
"""

import math
from collections.abc import Sequence
from enum import Enum
from functools import partial, reduce
from typing import Literal, cast

import torch
import torch.nn.functional as F
from timm.layers import register_notrace_module
from torch import Tensor, nn

from v2m.layers.common import autocast_disabled, cast_for, check_map, check_sizes, is_size, resolve_rank
from v2m.layers.directions import Directions, Path, choose
from v2m.layers.two_passes import TwoPasses, decay_rates, ones_like, reset_scan
from v2m.ops import selective_scan_2d


class Recurrence(str, Enum):
    """How a state moves in two dimensions."""

    SEPARABLE = "separable"
    """The paper's simplification: along every row, then down every column over what the rows produced."""

    EXACT = "exact"
    """Roesser's model: a row state and a column state, each going on from both."""

    ITERATIVE = "iterative"
    """Towards the exact one by sweeps: rows and columns on their own, each fed the other's last states."""


@register_notrace_module  # what it does depends on shapes and hooks
class ConvV2MMixer(nn.Module):
    """Mix the tokens of a map by scans from its corners, after one depthwise 3x3 convolution for all of them.

    The mixer of the hierarchical V2M (arXiv:2410.10382, figure of the block, after VMamba)::

        y      = sum over the corners of scan(conv2d(in_proj(input))) / sqrt(corners)
        output = out_proj(layer_norm(y))                  with use_norm
               = out_proj(y)                              else; gated by silu(z), z of in_proj, with use_gate

    where the scan is the two passes of the paper without convolutions of their own, or the exact recurrence
    of ``CoupledScan``, or its approximation by sweeps.

    Args:
        dim: Channels C of input and output.
        d_state: State size N of each channel.
        expand: Inner channels D as a multiple of ``dim``.
        dt_rank: Rank R of the step size projection, or ``"auto"`` for ``ceil(dim / 16)``.
        directions: As in ``V2MMixer``, but for ``"released"``.
        recurrence: ``"separable"``, ``"exact"`` or ``"iterative"``.
        iterations: Sweeps of the iterative recurrence, from 0.
        use_gate: Gate the result of the scans (of both passes, where there are two).
        use_norm: Normalise the result.
        use_axis_parameters: Give paths that begin along columns parameters of their own.
        single_gate: Gate the sum over the paths once, not every pass; coupled scans are gated so in any case.

    Raises:
        ValueError: an argument is out of range, or an input is not ``[B, H, W, C]``.

    Example:
        >>> ConvV2MMixer(32, recurrence="exact")(torch.randn(2, 5, 7, 32)).shape
        torch.Size([2, 5, 7, 32])
    """

    def __init__(
        self,
        dim: int,
        d_state: int = 16,
        expand: int = 2,
        dt_rank: int | Literal["auto"] = "auto",
        directions: Directions | str = Directions.CORNERS,
        recurrence: Recurrence | str = Recurrence.SEPARABLE,
        iterations: int = 2,
        use_gate: bool = True,
        use_norm: bool = False,
        use_axis_parameters: bool = False,
        single_gate: bool = False,
    ) -> None:
        super().__init__()
        check_sizes("ConvV2MMixer", dim=dim, d_state=d_state, expand=expand)
        rank = resolve_rank(dt_rank, dim)
        check_sizes("ConvV2MMixer", dt_rank=rank)
        self.directions = choose("ConvV2MMixer", "directions", directions, Directions)
        if self.directions is Directions.RELEASED:
            raise ValueError("ConvV2MMixer: directions is 'released', which V2MMixer alone has")
        self.recurrence = choose("ConvV2MMixer", "recurrence", recurrence, Recurrence)
        self.dim, self.use_gate = dim, use_gate
        inner = expand * dim
        self.in_proj = nn.Linear(dim, (2 if use_gate else 1) * inner, bias=False)
        self.conv2d = nn.Conv2d(inner, inner, 3, padding=1, groups=inner)

        def scan() -> TwoPasses | CoupledScan:
            if self.recurrence is Recurrence.SEPARABLE:
                return TwoPasses(inner, d_state, 0, rank, single_gate)
            sweeps = None if self.recurrence is Recurrence.EXACT else iterations
            return CoupledScan(inner, d_state, rank, sweeps)

        paths = self.directions.paths
        groups = [[path for path in paths if path.first.axis == axis] for axis in ("row", "col")]
        self.groups = [group for group in groups if group] if use_axis_parameters else [list(paths)]
        self.scans = nn.ModuleList(scan() for _ in self.groups)
        self.norm = nn.LayerNorm(inner) if use_norm else nn.Identity()
        self.out_proj = nn.Linear(inner, dim, bias=False)

    def reset_scan_parameters(self) -> None:
        """Initialise rates, skips, step sizes and couplings."""
        for scan in cast(Sequence[TwoPasses | CoupledScan], self.scans):
            scan.reset_scan_parameters()

    def forward(self, x: Tensor) -> Tensor:
        """Mix a map ``[B, H, W, C]`` into a map of the same shape."""
        check_map("ConvV2MMixer", x, self.dim)
        x, *z = cast_for(self.conv2d, self.in_proj(x)).chunk(2 if self.use_gate else 1, dim=-1)
        with autocast_disabled(x.device):
            gate = F.silu(z[0]) if z else ones_like(x)
            x = self.conv2d(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
            pairs = zip(self.scans, self.groups, strict=True)
            y = reduce(torch.add, (scan(paths, x, gate) for scan, paths in pairs))
            y = self.norm(y / math.sqrt(len(self.directions.paths)))
        return self.out_proj(y)

    def extra_repr(self) -> str:
        """Show the settings that the submodules do not."""
        return f"directions={self.directions.value!r}, recurrence={self.recurrence.value!r}"


class CoupledScan(nn.Module):
    """The exact two-dimensional recurrence, Roesser's, made selective and stable.

    For every corner, with ``s = silu(x)``, states h1 along rows and h2 along columns, and what ``x_proj`` and
    ``x_proj_2`` select, the same for all corners::

        delta, B, g1 = x_proj(s);   delta_2, C, g2 = x_proj_2(s)
        h1[i,j] = exp(dt1 A)   ((1 - g1) h1[i,j-1] + g1 h2[i,j-1]) + dt1 B s
        h2[i,j] = exp(dt2 A_2) (g2 h1[i-1,j] + (1 - g2) h2[i-1,j]) + dt2 B s
        y[i,j]  = <C, h1 + h2> + D s

    where ``dt = softplus(dt_proj(delta))`` and g, through a sigmoid, is in 0..1. So what a state goes on from
    is a mean of states, decayed: no input makes it grow. Where g is 0, two scans that know nothing of each
    other are left.

    Args:
        channels: Channels D of the map.
        d_state: State size N of each channel.
        dt_rank: Rank R of the step size projection.
        sweeps: Jacobi sweeps towards the coupled states, from 0; None for the coupled states themselves.
    """

    def __init__(self, channels: int, d_state: int, dt_rank: int, sweeps: int | None) -> None:
        super().__init__()
        if sweeps is not None and not is_size(sweeps, 0):
            raise ValueError(f"CoupledScan: sweeps (iterations) is {sweeps!r}, expected an integer from 0")
        self.sweeps, self.sizes = sweeps, (dt_rank, d_state, d_state)
        self.x_proj = nn.Linear(channels, dt_rank + 2 * d_state, bias=False)
        self.dt_proj = nn.Linear(dt_rank, channels)
        self.coupling_bias = nn.Parameter(torch.empty(d_state))
        self.A_log = nn.Parameter(torch.empty(channels, d_state))
        self.D = nn.Parameter(torch.empty(channels))
        self.x_proj_2 = nn.Linear(channels, dt_rank + 2 * d_state, bias=False)
        self.dt_proj_2 = nn.Linear(dt_rank, channels)
        self.coupling_2_bias = nn.Parameter(torch.empty(d_state))
        self.A_2_log = nn.Parameter(torch.empty(channels, d_state))
        self.reset_scan_parameters()

    @torch.no_grad()
    def reset_scan_parameters(self) -> None:
        """Initialise as the paper's passes; couplings half open."""
        reset_scan(self.A_log, self.D, self.dt_proj)
        reset_scan(self.A_2_log, self.D, self.dt_proj_2)
        self.coupling_bias.zero_()
        self.coupling_2_bias.zero_()

    def forward(self, paths: Sequence[Path], x: Tensor, gate: Tensor) -> Tensor:
        """Sum the results over the paths; the first scan of each is that of h1.

        Args:
            paths: The corners, and the axis of the row state.
            x: Input ``[B, H, W, D]``.
            gate: Factor of the sum, ``[B, H, W, D]``.

        Returns:
            ``[B, H, W, D]``.
        """
        s = F.silu(x)
        low, B, g1 = self.x_proj(s).split(self.sizes, dim=-1)
        low_2, C, g2 = self.x_proj_2(s).split(self.sizes, dim=-1)
        first = self.dt_proj(low), decay_rates(self.A_log), B, C, torch.sigmoid(g1 + self.coupling_bias)
        second = (
            self.dt_proj_2(low_2),
            decay_rates(self.A_2_log),
            B,
            C,
            torch.sigmoid(g2 + self.coupling_2_bias),
        )
        scan_from = partial(selective_scan_2d, s, delta_softplus=True)
        y = len(paths) * self.D * s
        for path in paths:
            is_row_first = path.first.axis == "row"
            row, col = (first, second) if is_row_first else (second, first)
            across, along = (path.first, path.second) if is_row_first else (path.second, path.first)
            arguments = (argument for pair in zip(row, col, strict=True) for argument in pair)
            y = y + scan_from(
                *arguments, reverse_row=across.reverse, reverse_col=along.reverse, sweeps=self.sweeps
            )
        return y * gate

    def extra_repr(self) -> str:
        """Show the settings that the submodules do not."""
        return f"sweeps={self.sweeps}"
