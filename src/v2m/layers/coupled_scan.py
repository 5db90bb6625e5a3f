"""The scans of the exact recurrence: a row state and a column state, each going on from both.

Shapes: B batch, H grid height, W grid width, D channels, N state size, R rank of the step size.
"""

from collections.abc import Sequence
from functools import partial
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from v2m.layers.common import is_size
from v2m.layers.directions import Path
from v2m.layers.scan_parameters import Decay, decay_rates, reset_scan
from v2m.ops import selective_scan_2d


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
        decay: What is learned of the decay rates.
    """

    undecayed: ClassVar[tuple[str, ...]] = ("A_log", "D", "A_2_log")
    """See ``Mixer``."""

    def __init__(
        self, channels: int, d_state: int, dt_rank: int, sweeps: int | None, decay: Decay = Decay.FREE
    ) -> None:
        super().__init__()
        if sweeps is not None and not is_size(sweeps, 0):
            raise ValueError(f"CoupledScan: sweeps is {sweeps!r}, expected an integer from 0 or None")
        self.sweeps, self.sizes, self.decay = sweeps, (dt_rank, d_state, d_state), decay
        self.x_proj = nn.Linear(channels, dt_rank + 2 * d_state, bias=False)
        self.dt_proj = nn.Linear(dt_rank, channels)
        self.coupling_bias = nn.Parameter(torch.empty(d_state))
        self.A_log = decay.empty_rates(channels, d_state)
        self.D = nn.Parameter(torch.empty(channels))
        self.x_proj_2 = nn.Linear(channels, dt_rank + 2 * d_state, bias=False)
        self.dt_proj_2 = nn.Linear(dt_rank, channels)
        self.coupling_2_bias = nn.Parameter(torch.empty(d_state))
        self.A_2_log = decay.empty_rates(channels, d_state)
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
        # Projected once for all corners: nothing but the walk over the grid differs between them.
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
        # The skip does not depend on the corner, so it is added once, times their number.
        y = len(paths) * self.D * s
        for path in paths:
            # The operator names its states by axis, h1 is that of the path's first scan on either axis.
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
        return f"sweeps={self.sweeps}, decay={self.decay.value!r}"
