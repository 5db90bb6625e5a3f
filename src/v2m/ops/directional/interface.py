"""Public entry of the directional pass, and its registration."""

from typing import cast

from torch import Tensor

from v2m.ops.directional.arguments import PassInputs, Selects, pass_flops
from v2m.ops.directional.reference import directional_pass_reference
from v2m.ops.dispatch import Implementation
from v2m.ops.gate import activated, check_gate
from v2m.ops.registration import Operator
from v2m.ops.scan.arguments import Axis


def directional_pass(
    x: Tensor,
    conv_weight: Tensor,
    conv_bias: Tensor,
    proj_weight: Tensor,
    delta_weight: Tensor,
    delta_bias: Tensor,
    A: Tensor,
    D: Tensor,
    *,
    gate: Tensor | None = None,
    z: Tensor | None = None,
    selects: Selects,
    axis: Axis = "row",
    reverse: bool = False,
    implementation: Implementation | None = None,
) -> Tensor:
    """Run one of the two passes of V2M (arXiv:2410.10382, section 3.2) over every row or column of a map.

    In the order of the scan, with ``selected`` taking the place of B or C and 1 that of the other::

        s[t]                      = silu(conv_bias + sum over k of conv_weight[k] * x[t - (K - 1) + k])
        (delta[t], selected[t])   = proj_weight @ s[t]
        dt[t]                     = softplus(delta_weight @ delta[t] + delta_bias)
        h[t]                      = exp(dt[t] * A) * h[t-1] + dt[t] * B[t] * s[t]
        y[t]                      = (<C[t], h[t]> + D * s[t]) * gate[t]

    Shapes: B batch, H grid height, W grid width, D channels, K taps, R rank of the step size, N state size.

    Args:
        x: Input map ``[B, H, W, D]``; float32, float64, bfloat16 or float16.
        conv_weight: Kernel of every channel ``[D, K]``; the last tap meets the cell itself.
        conv_bias: ``[D]``.
        proj_weight: ``[R + N, D]``.
        delta_weight: ``[D, R]``.
        delta_bias: ``[D]``.
        A: Decay rates ``[D, N]``, or ``[D]`` for geometric ones, ``(n + 1) * A[d]`` for n from 0, where N
            is what ``proj_weight`` has more rows than R; negative, per grid cell.
        D: Skip weight ``[D]``.
        gate: Factor of the output ``[B, H, W, D]``, taken as it is. Compute it once for several passes.
        z: The gate before its activation ``[B, H, W, D]``, in place of ``gate``: the factor is ``silu(z)``.
        selects: ``"B"`` (the paper's first pass) or ``"C"`` (its second).
        axis: ``"row"`` to run along W, ``"col"`` to run along H.
        reverse: Start from the last cell of each line; outputs stay on the cell of their input.
        implementation: As in ``selective_scan``.

    Returns:
        ``[B, H, W, D]``, with the dtype and device of ``x``.

    Raises:
        TypeError: an argument is no dense floating point tensor, ``reverse`` is no flag, or of ``gate`` and
            ``z`` not exactly one is given.
        ValueError: a shape, a device, ``selects``, ``axis`` or ``implementation`` is wrong.
    """
    check_gate("directional_pass", gate, z, is_required=True)
    factor = cast(Tensor, gate if z is None else z)
    p = PassInputs(
        x, factor, conv_weight, conv_bias, proj_weight, delta_weight, delta_bias, A, D, selects, axis, reverse
    )
    PASS.check(p, aliases={} if z is None else {"gate": "z"})
    if conv_weight.shape[1] == 0:
        raise ValueError(
            f"directional_pass: conv_weight has shape {list(conv_weight.shape)}, "
            f"expected {[len(conv_weight), 1]} ([D, K])"
        )
    if z is not None:
        p = p._replace(gate=activated(z))
    return PASS(p, implementation)


PASS = Operator(
    "directional_pass", PassInputs, oracle=directional_pass_reference, kernels="pass", flops=pass_flops
)
