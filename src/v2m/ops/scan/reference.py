"""The oracle: the recurrence written as it reads, in any floating point dtype, on any device."""

import torch
import torch.nn.functional as F
from torch import Tensor


def selective_scan_reference(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor | None,
    C: Tensor | None,
    D: Tensor | None,
    gate: Tensor | None,
    delta_bias: Tensor | None,
    delta_softplus: bool,
    axis: str,
    reverse: bool,
) -> Tensor:
    """Selective scan by a loop over the cells of a line; see ``v2m.ops.selective_scan``.

    Every step is elementwise over all lines at once. The tensors are unbound, not indexed: indexing inside
    the loop would make the backward quadratic in the length of a line.
    """
    dtype = torch.float64 if u.dtype == torch.float64 else torch.float32
    dim = 2 if axis == "row" else 1
    order = slice(None, None, -1) if reverse else slice(None)

    x, dt, A = u.to(dtype), delta.to(dtype), A.to(dtype)
    if delta_bias is not None:
        dt = dt + delta_bias.to(dtype)
    if delta_softplus:
        # Past 40, softplus(x) = x to float64 rounding; PyTorch's default of 20 is 2e-9 off.
        dt = F.softplus(dt, threshold=40)

    length = u.shape[dim]
    xs, dts = x.unbind(dim), dt.unbind(dim)
    Bs = None if B is None else B.to(dtype).unbind(dim)
    Cs = None if C is None else C.to(dtype).unbind(dim)

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

    if D is not None:
        y = y + D.to(dtype) * x
    if gate is not None:
        y = y * gate.to(dtype)
    return y.to(u.dtype)
