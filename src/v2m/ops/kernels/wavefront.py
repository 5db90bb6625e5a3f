"""The two-dimensional scan in PyTorch: one anti-diagonal of the map after the other.

Maps are turned so that their anti-diagonals are diagonals to PyTorch, and those of both kinds, row and
column, are stacked in this order. Diagonals are cut into segments, whose states are computed again in the
backward pass, so that only each segment's first are kept.

States are ``[2, L, B, cells of a diagonal, D, N]``, L levels: the iterates of all sweeps, each of which takes
its coupled terms from the level below; or one level, which takes them from itself.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from v2m.ops.kernels.products import outer, over_channels, over_states
from v2m.ops.rates import gradient_of_rates, rates_of_states
from v2m.ops.scan_2d.arguments import Scan2dInputs
from v2m.ops.softplus import softplus, softplus_backward

# Diagonals between two kept ones.
SEGMENT = 8


def scan_2d_forward(s: Scan2dInputs) -> Tensor:
    """The output ``[B, H, W, D]``."""
    front = _Front(s)
    y = front.turn(torch.empty(s.u.shape, dtype=torch.float32, device=s.u.device))
    for segment in front.segments():
        for t, h in zip(segment.diagonals, segment.states, strict=True):
            front.at(y, t).copy_(over_states(h[:, -1], front.at(front.C, t)).sum(0))
    return front.turn(y).to(s.u.dtype)


def scan_2d_backward(grad: Tensor, s: Scan2dInputs) -> Scan2dInputs:
    """The gradients of the tensors, given that of the output; the recurrence runs backwards."""
    front = _Front(s)
    dy = front.turn(grad.float())
    A, inputs = front.A, (front.dt, front.drive, front.B, front.C, front.coupling)
    dA, (ddt, ddrive, dB, dC, dcoupling) = torch.zeros_like(A), map(torch.zeros_like, inputs)
    # Forward once for the states between segments; then from the last diagonal to the first, computing the
    # states of each segment again.
    starts = [segment.start for segment in front.segments()]
    carry: Tensor | None = None
    for number in reversed(range(len(starts))):
        segment = front.segment(number, starts[number])
        for i, t in reversed(list(enumerate(segment.diagonals))):
            dt, drive, B, C, coupling = (front.at(x, t) for x in inputs)
            # From the diagonal after this one, and from the output, which the last level alone gives.
            dh = torch.zeros_like(segment.states[i]) if carry is None else carry
            dh[:, -1] += outer(front.at(dy, t), C)
            of_all_levels = dh.sum(1)
            # To the weights and drives of the cells; each level got the same drive.
            front.at(dC, t).copy_(over_channels(front.at(dy, t), segment.states[i][:, -1]))
            front.at(dB, t).copy_(over_channels(drive, of_all_levels))
            front.at(ddrive, t).copy_(over_states(of_all_levels, B))
            # Through the decay to what the states went on from, and to its coupling.
            own, other = front.neighbours(segment.states[i - 1] if i else segment.start, t)
            share = coupling[:, None, :, :, None]
            decay = segment.decays[i].unsqueeze(1)
            # In this order: a large decay times a state of 0, outside the map, is 0.
            slope = (dh * ((1 - share) * own + share * other) * decay).sum(1)
            dh = dh * decay
            front.at(ddt, t).copy_((slope * A).sum(-1))
            dA += (slope * dt.unsqueeze(-1)).sum((1, 2), keepdim=True)
            front.at(dcoupling, t).copy_((dh * other - dh * own).sum((1, 4)))
            carry = front.neighbours_back((1 - share) * dh, share * dh, t)

    # Back to maps: the drive was dt * u, the step size came through softplus.
    ddelta = ddt + ddrive * front.u
    if s.delta_softplus:
        ddelta = softplus_backward(ddelta, front.raw)
    maps = ((ddrive * front.dt).sum(0), *ddelta, *dB, *dC, *dcoupling)
    du, ddelta_row, ddelta_col, *of_states = map(front.turn, maps)
    # Copies, for PyTorch wants each gradient in memory of its own.
    of_rates = (gradient_of_rates(x, s.A_row).clone() for x in dA[:, 0, 0])
    return s.with_tensors(du, ddelta_row, ddelta_col, *of_rates, *of_states)


@dataclass
class _Segment:
    """Some diagonals: the states before them, and decays ``[2, B, cells, D, N]`` and states of each."""

    diagonals: range
    start: Tensor
    decays: list[Tensor]
    states: list[Tensor]


class _Front:
    """The inputs of a scan by diagonal."""

    def __init__(self, s: Scan2dInputs) -> None:
        self.height, self.width = s.u.shape[1:3]
        self._flipped = [dim for dim, flip in ((-3, s.reverse_col), (-2, not s.reverse_row)) if flip]
        self._is_swept = s.sweeps is not None
        self.raw = self._maps(s.delta_row, s.delta_col)
        self.dt = softplus(self.raw) if s.delta_softplus else self.raw
        self.u = self.turn(s.u.float())
        self.drive = self.dt * self.u
        rates = [rates_of_states(A.float(), s.states) for A in (s.A_row, s.A_col)]
        self.A = torch.stack(rates)[:, None, None]
        self.B, self.C = self._maps(s.B_row, s.B_col), self._maps(s.C_row, s.C_col)
        self.coupling = self._maps(s.coupling_row, s.coupling_col)
        self._levels = s.levels

    def _maps(self, row: Tensor, col: Tensor) -> Tensor:
        return self.turn(torch.stack([row.float(), col.float()]))

    def turn(self, maps: Tensor) -> Tensor:
        """Maps ``[.., H, W, channels]`` so that ``at`` finds their diagonals, or back from that."""
        return maps.flip(self._flipped)

    def at(self, maps: Tensor, t: int) -> Tensor:
        """Diagonal t of turned maps ``[.., cells, channels]``, by rows; not a copy."""
        return maps.diagonal(self.width - 1 - t, -3, -2).movedim(-1, -2)

    def _rows(self, t: int) -> range:
        return range(max(0, t + 1 - self.width), min(self.height, t + 1))

    def segments(self) -> Iterator[_Segment]:
        """All of them in order, each starting from the last states of the one before."""
        (_, batch, _, _, channels), states = self.dt.shape, self.A.shape[-1]
        h = self.A.new_zeros(2, self._levels, batch, 0, channels, states)
        for number in range((self.height + self.width - 2) // SEGMENT + 1):
            segment = self.segment(number, h)
            h = segment.states[-1]
            yield segment

    def segment(self, number: int, start: Tensor) -> _Segment:
        """The segment of this number, from the states before it."""
        last = self.height + self.width - 1
        segment = _Segment(range(number * SEGMENT, min(last, (number + 1) * SEGMENT)), start, [], [])
        h = start
        for t in segment.diagonals:
            own, other = self.neighbours(h, t)
            share = self.at(self.coupling, t)[:, None, :, :, None]
            decay = torch.exp(self.at(self.dt, t).unsqueeze(-1) * self.A)
            drive = outer(self.at(self.drive, t), self.at(self.B, t))
            h = decay.unsqueeze(1) * ((1 - share) * own + share * other) + drive.unsqueeze(1)
            segment.decays.append(decay)
            segment.states.append(h)
        return segment

    def neighbours(self, h: Tensor, t: int) -> tuple[Tensor, Tensor]:
        """What the states of diagonal t go on from, of their own and of the other kind."""
        # A cell of zeros at both ends stands for what lies outside the map.
        left, up = self._left_and_up(F.pad(h, (0, 0, 0, 0, 1, 1)), t)
        own, other = torch.stack([left[0], up[1]]), torch.stack([left[1], up[0]])
        if self._is_swept:
            other = torch.cat([torch.zeros_like(other[:, :1]), other[:, :-1]], 1)
        return own, other

    def neighbours_back(self, own: Tensor, other: Tensor, t: int) -> Tensor:
        """The gradient of h, given those of its ``neighbours``."""
        if self._is_swept:
            other = torch.cat([other[:, 1:], torch.zeros_like(other[:, :1])], 1)
        cells = len(self._rows(t - 1))
        dh = own.new_zeros(*own.shape[:3], cells + 2, *own.shape[4:])
        # Views of one tensor: a cell is the left neighbour of one cell and the upper one of another.
        left, up = self._left_and_up(dh, t)
        left += torch.stack([own[0], other[0]])
        up += torch.stack([other[1], own[1]])
        return dh.narrow(3, 1, cells)

    def _left_and_up(self, padded: Tensor, t: int) -> tuple[Tensor, Tensor]:
        """Of the diagonal before t, with a cell more at both ends, the cells to the left and above."""
        rows, first = self._rows(t), self._rows(t - 1).start
        up = rows.start - first
        return padded.narrow(3, up + 1, len(rows)), padded.narrow(3, up, len(rows))
