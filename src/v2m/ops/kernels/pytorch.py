"""The kernels in PyTorch, for machines and devices that have no others.

Maps are laid out time first. Lines are cut into segments, whose states are computed again in the backward
pass, so that only each segment's first is kept.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from v2m.ops.directional.arguments import PassInputs
from v2m.ops.kernels.composed import compose_backward, compose_forward
from v2m.ops.kernels.products import outer, over_channels, over_states
from v2m.ops.kernels.wavefront import scan_2d_backward as scan_2d_backward
from v2m.ops.kernels.wavefront import scan_2d_forward as scan_2d_forward
from v2m.ops.rates import multiples, rates_of_states
from v2m.ops.scan.arguments import ScanInputs
from v2m.ops.softplus import softplus, softplus_backward

# Cells between two kept states. Longer segments keep fewer states at once and compute as many again.
SEGMENT = 16


def pass_forward(p: PassInputs) -> Tensor:
    """The output ``[B, H, W, D]``."""
    return compose_forward(_widened(p), conv_silu_forward, scan_forward).to(p.x.dtype)


def pass_backward(grad: Tensor, p: PassInputs) -> PassInputs:
    """The gradients of the tensors, given that of the output."""
    return compose_backward(grad, _widened(p), conv_silu_forward, conv_silu_backward, scan_backward)


def _widened(p: PassInputs) -> PassInputs:
    """What float16 would overflow in is computed in float32, as by the other implementations on a CPU."""
    return p._replace(x=p.x.float()) if p.x.dtype == torch.float16 else p


def scan_forward(s: ScanInputs) -> Tensor:
    """The output ``[B, H, W, D]``."""
    line = _Line(s)
    y = line.to_map([read for segment in line.segments() for read in segment.reads])
    if s.D is not None:
        y = y + s.D.float() * s.u.float()
    if s.gate is not None:
        y = y * s.gate.float()
    return y.to(s.u.dtype)


def scan_backward(grad: Tensor, s: ScanInputs) -> ScanInputs:
    """The gradients of the tensors, given that of the output; the recurrence runs backwards."""
    # The gradient of what the scan reads out, before skip and gate.
    line = _Line(s)
    dy_map = grad.float() if s.gate is None else grad.float() * s.gate.float()
    dy = line.cells(dy_map)
    dA, carry = torch.zeros_like(s.A, dtype=torch.float32), torch.zeros_like(line.start)
    ys: list[Tensor] = []
    ddts, ddrives, dBs, dCs = ([dy[0]] * line.length for _ in range(4))
    # Forward once for the states between segments; then from the last segment to the first, computing the
    # states of each again while its gradients are taken.
    starts = [segment.start for segment in line.segments()]
    for number in reversed(range(len(starts))):
        segment = line.segment(number, starts[number])
        ys = segment.reads + ys
        for i in reversed(range(len(segment.decays))):
            t = number * SEGMENT + i
            before = segment.states[i - 1] if i else segment.start
            # From this cell's output, and from the state of the cell after it.
            dh = carry + (dy[t].unsqueeze(-1) if line.C is None else outer(dy[t], line.C[t]))
            if line.C is not None:
                dCs[t] = over_channels(dy[t], segment.states[i])
            if line.B is not None:
                dBs[t] = over_channels(line.drives[t], dh)
            ddrives[t] = dh.sum(-1) if line.B is None else over_states(dh, line.B[t])
            # In this order: a large decay times a state of 0, before the first cell, is 0.
            slope = dh * before * segment.decays[i]
            carry = dh * segment.decays[i]
            if s.A.dim() == 1:
                # The slope of what all states of a channel share, dt * A of the first state.
                shared = slope @ line.multiples
                ddts[t] = shared * s.A.float()
                dA += (shared * line.dts[t]).flatten(0, -2).sum(0)
            else:
                ddts[t] = (slope * line.A).sum(-1)
                dA += (slope * line.dts[t].unsqueeze(-1)).flatten(0, -3).sum(0)

    # What belongs to cells, on whole maps: the drive dt * u, the skip, and the step size through softplus.
    x, y, ddrive = s.u.float(), line.to_map(ys), line.to_map(ddrives)
    du = ddrive * line.dt
    if s.D is not None:
        y = y + s.D.float() * x
        du = du + s.D.float() * dy_map
    ddelta = line.to_map(ddts) + ddrive * x
    if s.delta_softplus:
        ddelta = softplus_backward(ddelta, line.raw)
    return s._replace(
        u=du,
        delta=ddelta,
        A=dA,
        B=None if s.B is None else line.to_map(dBs),
        C=None if s.C is None else line.to_map(dCs),
        D=None if s.D is None else (dy_map * x).sum((0, 1, 2)),
        gate=None if s.gate is None else grad.float() * y,
        delta_bias=None,
        delta_weight=None,
    )


@dataclass
class _Segment:
    """Decays, states ``[lines, D, N]`` and outputs ``[lines, D]`` of some cells; the state before them."""

    start: Tensor
    decays: list[Tensor]
    states: list[Tensor]
    reads: list[Tensor]


class _Line:
    """The inputs of a scan as lists of cells in its order, all lines at once."""

    def __init__(self, s: ScanInputs) -> None:
        self._dim = 2 if s.axis == "row" else 1
        self._order = slice(None, None, -1) if s.reverse else slice(None)
        self.raw = s.delta.float()
        if s.delta_weight is not None:
            self.raw = F.linear(self.raw, s.delta_weight.float())
        if s.delta_bias is not None:
            self.raw = self.raw + s.delta_bias.float()
        self.dt = softplus(self.raw) if s.delta_softplus else self.raw
        self.dts, self.drives = self.cells(self.dt), self.cells(self.dt * s.u.float())
        # One exponential per state even where one per channel would do: PyTorch's powers take as long.
        self.A, self.multiples = rates_of_states(s.A.float(), s.states), multiples(self.dt, s.states)
        self.B = None if s.B is None else self.cells(s.B.float())
        self.C = None if s.C is None else self.cells(s.C.float())
        self.length = len(self.dts)
        self.start = self.A.new_zeros(*self.dts[0].shape, self.A.shape[1])

    def cells(self, value: Tensor) -> tuple[Tensor, ...]:
        return value.movedim(self._dim, 0).contiguous().unbind(0)[self._order]

    def to_map(self, cells: list[Tensor]) -> Tensor:
        return torch.stack(cells[self._order], self._dim)

    def segments(self) -> Iterator[_Segment]:
        """All of them in order, each starting from the last state of the one before."""
        h = self.start
        for number in range((self.length + SEGMENT - 1) // SEGMENT):
            segment = self.segment(number, h)
            h = segment.states[-1]
            yield segment

    def segment(self, number: int, start: Tensor) -> _Segment:
        """The segment of this number, from the state before it."""
        decays, states, reads, h = [], [], [], start
        for t in range(number * SEGMENT, min(self.length, (number + 1) * SEGMENT)):
            drive = self.drives[t]
            a = torch.exp(self.dts[t].unsqueeze(-1) * self.A)
            h = a * h + (drive.unsqueeze(-1) if self.B is None else outer(drive, self.B[t]))
            decays.append(a)
            states.append(h)
            reads.append(h.sum(-1) if self.C is None else over_states(h, self.C[t]))
        return _Segment(start, decays, states, reads)


def conv_silu_forward(x: Tensor, weight: Tensor, bias: Tensor, axis: str, reverse: bool) -> Tensor:
    """The output ``[B, H, W, D]``."""
    return F.silu(_convolve(_taps(x, weight, axis, reverse), weight, bias)).to(x.dtype)


def conv_silu_backward(
    grad: Tensor, x: Tensor, weight: Tensor, bias: Tensor, axis: str, reverse: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of x, weight and bias."""
    taps = _taps(x, weight, axis, reverse)
    v = _convolve(taps, weight, bias)
    gate = torch.sigmoid(v)
    slope = grad.float() * gate * (1 + v * (1 - gate))
    dweight = torch.stack([(slope * tap).sum((0, 1, 2)) for tap in taps], dim=-1)
    # The gradient of a causal convolution is one in the other sense.
    dx = _convolve(_taps(slope, weight, axis, not reverse), weight, torch.zeros_like(bias))
    return dx, dweight, slope.sum((0, 1, 2))


def _convolve(taps: list[Tensor], weight: Tensor, bias: Tensor) -> Tensor:
    v = bias.float()
    for k, tap in enumerate(taps):
        v = v + tap * weight[:, k].float()
    return v


def _taps(x: Tensor, weight: Tensor, axis: str, reverse: bool) -> list[Tensor]:
    """What each tap of a kernel meets: the map shifted, zeros coming in."""
    past, dim = weight.shape[1] - 1, 2 if axis == "row" else 1
    before, after = (0, past) if reverse else (past, 0)
    padding = [0, 0, before, after] if axis == "row" else [0, 0, 0, 0, before, after]
    padded = F.pad(x.float(), padding)
    return [padded.narrow(dim, past - k if reverse else k, x.shape[dim]) for k in range(past + 1)]
