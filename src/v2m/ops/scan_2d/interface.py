"""Public entry of the two-dimensional scan, and its registration."""

import torch
import torch.nn.functional as F
from torch import Tensor

from v2m.ops.arguments import Argument, described
from v2m.ops.dispatch import Implementation
from v2m.ops.gate import check_gate
from v2m.ops.registration import Operator
from v2m.ops.scan_2d.arguments import Scan2dInputs, scan_2d_flops
from v2m.ops.scan_2d.reference import selective_scan_2d_reference


def selective_scan_2d(
    u: Tensor,
    delta_row: Tensor,
    delta_col: Tensor,
    A_row: Tensor,
    A_col: Tensor,
    B_row: Tensor,
    B_col: Tensor,
    C_row: Tensor,
    C_col: Tensor,
    coupling_row: Tensor,
    coupling_col: Tensor,
    D: Tensor | None = None,
    z: Tensor | None = None,
    delta_softplus: bool = False,
    *,
    gate: Tensor | None = None,
    reverse_row: bool = False,
    reverse_col: bool = False,
    sweeps: int | None = None,
    implementation: Implementation | None = None,
) -> Tensor:
    """Scan a feature map from one corner with a two-dimensional (Roesser) selective state space model.

    Each channel d carries a row state h1 of N numbers rightwards from cell to cell, and a column state h2
    downwards. What each goes on from is a mixture of both (V2M, arXiv:2410.10382, section 3.1, before the
    paper separates them), so that a cell is reached by every path from the corner::

        dt1, dt2 = softplus(delta_row), softplus(delta_col)                    (softplus if asked for)
        h1[i, j] = exp(dt1[i, j] * A_row) * ((1 - g1[i, j]) * h1[i, j-1] + g1[i, j] * h2[i, j-1])
                 + dt1[i, j] * B_row[i, j] * u[i, j]
        h2[i, j] = exp(dt2[i, j] * A_col) * (g2[i, j] * h1[i-1, j] + (1 - g2[i, j]) * h2[i-1, j])
                 + dt2[i, j] * B_col[i, j] * u[i, j]
        y[i, j]  = (<C_row[i, j], h1[i, j]> + <C_col[i, j], h2[i, j]> + D * u[i, j]) * silu(z[i, j])

    with g1 = ``coupling_row``, g2 = ``coupling_col``, and states of 0 outside the map. Without coupling these
    are a scan of the rows and one of the columns, added. With ``sweeps=k`` the coupling is approached: sweep
    0 drops the coupled terms (those of h2 in h1, and of h1 in h2), and each of k further sweeps takes them
    from the states of the sweep before. H + W - 2 sweeps give the coupled states themselves. States and
    decays are float32 (float64 if ``u`` is), whatever the dtypes of the arguments.

    Shapes: B batch, H grid height, W grid width, D channels, N state size.

    Args:
        u: Input map ``[B, H, W, D]``; float32, float64, bfloat16 or float16.
        delta_row: Step sizes along W ``[B, H, W, D]``, in grid cells; positive after softplus.
        delta_col: Step sizes along H likewise.
        A_row: Continuous-time decay rates of the row states ``[D, N]``, or ``[D]`` for geometric ones,
            ``(n + 1) * A_row[d]`` for n from 0; negative, per grid cell.
        A_col: Those of the column states, of the same shape.
        B_row: Input weights of the row states ``[B, H, W, N]``, shared by the channels.
        B_col: Those of the column states.
        C_row: Output weights of the row states ``[B, H, W, N]``, shared by the channels.
        C_col: Those of the column states.
        coupling_row: Share of the column state in what a row state goes on from ``[B, H, W, N]``, in [0, 1],
            shared by the channels.
        coupling_col: Share of the row state in what a column state goes on from, likewise.
        D: Skip weight ``[D]``; None for no skip.
        z: Gate before its activation ``[B, H, W, D]``, applied as ``silu(z)``; None for no gate.
        delta_softplus: Pass the step sizes through softplus.
        gate: Factor of the output ``[B, H, W, D]``, taken as it is, in place of ``z``.
        reverse_row: Start from the last column; outputs stay on the cell of their input.
        reverse_col: Start from the last row; outputs stay on the cell of their input.
        sweeps: Number of sweeps k after the first one; None for the coupled states.
        implementation: As in ``selective_scan``.

    Returns:
        ``[B, H, W, D]``, with the dtype and device of ``u``.

    Raises:
        TypeError: an argument is no dense floating point tensor, a flag is no bool, or ``gate`` and ``z`` are
            both given.
        ValueError: a shape, a device, ``sweeps`` or ``implementation`` is wrong; the message names the
            argument, what it got and what was expected.

    Example:
        >>> u = torch.zeros(1, 3, 3, 1)
        >>> u[0, 0, 0] = 1.0
        >>> step, A, ones = torch.ones_like(u), torch.tensor([[-0.6931472]]), torch.ones(1, 3, 3, 1)
        >>> y = selective_scan_2d(u, step, step, A, A, ones, ones, ones, ones, 0.5 * ones, 0.5 * ones)
        >>> y[0, :, :, 0]
        tensor([[2.0000, 0.5000, 0.1250],
                [0.5000, 0.2500, 0.0938],
                [0.1250, 0.0938, 0.0469]])
    """
    s = Scan2dInputs(
        u,
        delta_row,
        delta_col,
        A_row,
        A_col,
        B_row,
        B_col,
        C_row,
        C_col,
        coupling_row,
        coupling_col,
        delta_softplus,
        reverse_row,
        reverse_col,
        sweeps,
    )
    check_gate("selective_scan_2d", gate, z)
    more = ((SKIP, D), (GATE, gate if z is None else z))
    SCAN_2D.check(s, more, aliases={} if z is None else {"gate": "z"})
    if sweeps is not None and (not isinstance(sweeps, int) or not 0 <= sweeps < 2**31):
        raise ValueError(
            f"selective_scan_2d: sweeps is {described(sweeps)}, "
            "expected None or an integer from 0 below 2**31"
        )
    dtype = torch.float64 if u.dtype == torch.float64 else torch.float32
    if z is not None:
        gate = F.silu(z.to(dtype))
    if D is not None or gate is not None:
        s = s._replace(u=u.to(dtype))  # so that the result is rounded once
    y = SCAN_2D(s, implementation)
    if D is not None:
        y = y + D.to(dtype) * s.u
    if gate is not None:
        y = y * gate.to(dtype)
    return y.to(u.dtype)


# The skip and the gate are the same for all corners, so they are not in the operator.
SKIP = Argument("D", "Tensor?", "D")
GATE = Argument("gate", "Tensor?", "B, H, W, D")
SCAN_2D = Operator(
    "selective_scan_2d",
    Scan2dInputs,
    oracle=selective_scan_2d_reference,
    kernels="scan_2d",
    flops=scan_2d_flops,
)
