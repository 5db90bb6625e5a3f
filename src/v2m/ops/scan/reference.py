"""The oracle: the recurrence written as it reads, in any floating point dtype, on any device."""

import torch
from torch import Tensor

from v2m.ops.rates import rates_of_states
from v2m.ops.scan.arguments import ScanInputs
from v2m.ops.softplus import softplus


def selective_scan_reference(s: ScanInputs) -> Tensor:
    """Selective scan by a loop over the cells of a line; see ``v2m.ops.selective_scan``.

    Every step is elementwise over all lines at once. The tensors are unbound, not indexed: indexing inside
    the loop would make the backward quadratic in the length of a line.
    """
    dtype = torch.float64 if s.u.dtype == torch.float64 else torch.float32
    dim = 2 if s.axis == "row" else 1
    order = slice(None, None, -1) if s.reverse else slice(None)

    x, dt, A = s.u.to(dtype), s.delta.to(dtype), rates_of_states(s.A.to(dtype), s.states)
    if s.delta_bias is not None:
        dt = dt + s.delta_bias.to(dtype)
    if s.delta_softplus:
        dt = softplus(dt)

    length = s.u.shape[dim]
    xs, dts = x.unbind(dim), dt.unbind(dim)
    Bs = None if s.B is None else s.B.to(dtype).unbind(dim)
    Cs = None if s.C is None else s.C.to(dtype).unbind(dim)

    h = A.new_zeros(*xs[0].shape, A.shape[1])
    ys = []
    for t in range(length)[order]:
        drive = (dts[t] * xs[t]).unsqueeze(-1)
        if Bs is not None:
            drive = drive * Bs[t].unsqueeze(-2)
        h = torch.exp(dts[t].unsqueeze(-1) * A) * h + drive
        read = h if Cs is None else h * Cs[t].unsqueeze(-2)
        ys.append(read.sum(-1))
    y = torch.stack(ys[order], dim)

    if s.D is not None:
        y = y + s.D.to(dtype) * x
    if s.gate is not None:
        y = y * s.gate.to(dtype)
    return y.to(s.u.dtype)
