"""Public entry of the selective scan: argument checks, then an implementation."""

from typing import Literal, TypeAlias, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from v2m.ops.arguments import check_flags, check_tensors, described
from v2m.ops.dispatch import Implementation, choose_implementation
from v2m.ops.scan.operator import scan
from v2m.ops.scan.reference import selective_scan_reference

Axis: TypeAlias = Literal["row", "col"]
"""``row``: the recurrence runs along W, within a row. ``col``: along H, within a column."""


def selective_scan(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor | None = None,
    C: Tensor | None = None,
    D: Tensor | None = None,
    z: Tensor | None = None,
    delta_bias: Tensor | None = None,
    delta_softplus: bool = False,
    *,
    axis: Axis = "row",
    reverse: bool = False,
    implementation: Implementation | None = None,
) -> Tensor:
    """Scan every row, or every column, of a feature map with a selective state space model.

    Each channel d of each line carries a state h of N numbers from cell t-1 to cell t (Mamba,
    arXiv:2312.00752, equation 2; V2M, arXiv:2410.10382, section 3.2, uses it once along the rows with
    C = 1 and once along the columns with B = 1)::

        dt[t]  = softplus(delta[t] + delta_bias)                    (each part if asked for)
        h[t]   = exp(dt[t] * A) * h[t-1] + dt[t] * B[t] * u[t]      h before the first cell is 0
        y[t]   = (<C[t], h[t]> + D * u[t]) * silu(z[t])

    Lines are independent, of any length and number. States and decays are float32 (float64 if ``u`` is),
    whatever the dtypes of the arguments. Where they cannot hold a result it is inf or NaN, and so it is where
    it depends on an argument that is. Of no images the result is empty; a map has a cell and a channel.

    Shapes: B batch, H grid height, W grid width, D channels, N state size.

    Args:
        u: Input map ``[B, H, W, D]``; float32, float64, bfloat16 or float16.
        delta: Step sizes ``[B, H, W, D]``, in grid cells; positive after bias and softplus.
        A: Continuous-time decay rates ``[D, N]``, negative, per grid cell.
        B: Input weights ``[B, H, W, N]``, shared by the channels; None for the constant 1.
        C: Output weights ``[B, H, W, N]``, shared by the channels; None for the constant 1.
        D: Skip weight ``[D]``; None for no skip.
        z: Gate ``[B, H, W, D]``, applied as ``silu(z)``; None for no gate.
        delta_bias: Added to ``delta`` first, ``[D]``.
        delta_softplus: Pass ``delta`` (with its bias) through softplus.
        axis: ``"row"`` to run along W, ``"col"`` to run along H.
        reverse: Start from the last cell of each line; outputs stay on the cell of their input.
        implementation: ``"reference"``, ``"cpu"``, ``"triton"`` or ``"pytorch"``; by default the fastest for
            the device. Higher derivatives, forward-mode ones and the transforms of ``torch.func`` are those
            of the reference, which is slow; what is asked for by name refuses the latter two.

    Returns:
        ``[B, H, W, D]``, with the dtype and device of ``u``.

    Raises:
        TypeError: an argument is no dense floating point tensor, or a flag no bool.
        ValueError: a shape, a device, ``axis`` or ``implementation`` is wrong; the message names the
            argument, what it got and what was expected.

    Example:
        >>> u = torch.ones(1, 2, 3, 4)
        >>> y = selective_scan(u, 0.5 * u, A=-torch.ones(4, 1), axis="row")
        >>> y[0, :, :, 0]
        tensor([[0.5000, 0.8033, 0.9872],
                [0.5000, 0.8033, 0.9872]])
    """
    check_flags("selective_scan", delta_softplus=delta_softplus, reverse=reverse)
    _check_arguments(u, delta, A, B, C, D, z, delta_bias, axis)
    gate = None if z is None else F.silu(z if z.dtype == torch.float64 else z.float())
    chosen = choose_implementation("selective_scan", u, implementation)
    if chosen == "reference":
        return selective_scan_reference(u, delta, A, B, C, D, gate, delta_bias, delta_softplus, axis, reverse)
    return scan(u, delta, A, B, C, D, gate, delta_bias, delta_softplus, axis, reverse, chosen)


def _check_arguments(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor | None,
    C: Tensor | None,
    D: Tensor | None,
    z: Tensor | None,
    delta_bias: Tensor | None,
    axis: str,
) -> None:
    if not isinstance(axis, str) or axis not in get_args(Axis):
        raise ValueError(f"selective_scan: axis is {described(axis)}, expected 'row' or 'col'")
    tensors = dict(u=u, delta=delta, A=A, B=B, C=C, D=D, z=z, delta_bias=delta_bias)
    check_tensors("selective_scan", tensors, optional=("B", "C", "D", "z", "delta_bias"))
    if u.ndim != 4 or 0 in u.shape[1:]:
        raise ValueError(
            f"selective_scan: u has shape {list(u.shape)}, expected a non-empty map [B, H, W, D]"
        )
    channels = u.shape[-1]
    if A.ndim != 2 or A.shape[0] != channels:
        raise ValueError(
            f"selective_scan: A has shape {list(A.shape)}, expected [D, N] with D = {channels} as in u"
        )
    map_shape, line_shape = tuple(u.shape), (*u.shape[:-1], A.shape[1])
    arguments = (
        ("delta", delta, map_shape, "[B, H, W, D] as u"),
        ("A", A, tuple(A.shape), "[D, N]"),
        ("B", B, line_shape, "[B, H, W, N] with N as in A"),
        ("C", C, line_shape, "[B, H, W, N] with N as in A"),
        ("D", D, (channels,), "[D] as the last size of u"),
        ("z", z, map_shape, "[B, H, W, D] as u"),
        ("delta_bias", delta_bias, (channels,), "[D] as the last size of u"),
    )
    for name, value, shape, meaning in arguments:
        if value is None:
            continue
        if tuple(value.shape) != shape:
            raise ValueError(
                f"selective_scan: {name} has shape {list(value.shape)}, expected {list(shape)} ({meaning})"
            )
