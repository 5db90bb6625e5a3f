"""The oracle: both recurrences written as they read, in any floating point dtype, on any device."""

import torch
from torch import Tensor

from v2m.ops.rates import rates_of_states
from v2m.ops.scan_2d.arguments import Scan2dInputs
from v2m.ops.softplus import softplus

ROW, COL = 2, 1  # the dimensions along which the row and the column states go


def selective_scan_2d_reference(s: Scan2dInputs) -> Tensor:
    """Scan cell by cell, or sweep by sweep; see ``v2m.ops.selective_scan_2d``."""
    dtype = torch.float64 if s.u.dtype == torch.float64 else torch.float32
    corner = [dim for dim, reverse in ((COL, s.reverse_col), (ROW, s.reverse_row)) if reverse]

    def maps(*tensors: Tensor) -> list[Tensor]:
        return [tensor.to(dtype).flip(corner) for tensor in tensors]

    (u,), deltas = maps(s.u), maps(s.delta_row, s.delta_col)
    if s.delta_softplus:
        deltas = [softplus(delta) for delta in deltas]
    decays = [
        torch.exp(delta.unsqueeze(-1) * rates_of_states(A.to(dtype), s.states))
        for delta, A in zip(deltas, (s.A_row, s.A_col), strict=True)
    ]
    drives = [
        (delta * u).unsqueeze(-1) * B.unsqueeze(-2)
        for delta, B in zip(deltas, maps(s.B_row, s.B_col), strict=True)
    ]
    shares = [coupling.unsqueeze(-2) for coupling in maps(s.coupling_row, s.coupling_col)]
    if s.sweeps is None:
        states = _coupled(decays, drives, shares)
    else:
        states = _swept(decays, drives, shares, s.levels)
    reads = [(h * C.unsqueeze(-2)).sum(-1) for h, C in zip(states, maps(s.C_row, s.C_col), strict=True)]
    return (reads[0] + reads[1]).flip(corner).to(s.u.dtype)


def _coupled(decays: list[Tensor], drives: list[Tensor], shares: list[Tensor]) -> list[Tensor]:
    """The states ``[B, H, W, D, N]`` of both kinds, cell by cell.

    The tensors are unbound, not indexed: indexing inside the loop would make the backward quadratic.
    """
    cells = [[row.unbind(1) for row in tensor.unbind(1)] for tensor in (*decays, *drives, *shares)]
    nothing = torch.zeros_like(cells[0][0][0])
    above = [(nothing, nothing)] * len(cells[0][0])
    rows, cols = [], []
    for row in zip(*cells, strict=True):
        left, line = (nothing, nothing), []
        for up, cell in zip(above, zip(*row, strict=True), strict=True):
            e1, e2, drive1, drive2, g1, g2 = cell
            h1 = e1 * ((1 - g1) * left[0] + g1 * left[1]) + drive1
            h2 = e2 * (g2 * up[0] + (1 - g2) * up[1]) + drive2
            left = (h1, h2)
            line.append(left)
        above = line
        rows.append(torch.stack([h1 for h1, _ in line], 1))
        cols.append(torch.stack([h2 for _, h2 in line], 1))
    return [torch.stack(rows, 1), torch.stack(cols, 1)]


def _swept(decays: list[Tensor], drives: list[Tensor], shares: list[Tensor], levels: int) -> list[Tensor]:
    """The states after some Jacobi sweeps, from those without the coupled terms."""
    states = [torch.zeros_like(drive) for drive in drives]
    for _ in range(levels):
        states = [
            _along(dim, decay, drive, share, other)
            for dim, decay, drive, share, other in zip(
                (ROW, COL), decays, drives, shares, reversed(states), strict=True
            )
        ]
    return states


def _along(dim: int, decay: Tensor, drive: Tensor, share: Tensor, other: Tensor) -> Tensor:
    """One kind of states along its dimension, given the other kind."""
    h, before, states = torch.zeros_like(drive.select(dim, 0)), torch.zeros_like(other.select(dim, 0)), []
    lines = (tensor.unbind(dim) for tensor in (decay, drive, share, other))
    for e, input, g, here in zip(*lines, strict=True):
        h = e * ((1 - g) * h + g * before) + input
        before = here
        states.append(h)
    return torch.stack(states, dim)
