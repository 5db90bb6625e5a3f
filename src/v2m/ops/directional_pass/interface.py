"""Public entry of the directional pass: argument checks, then an implementation."""

from typing import Literal, TypeAlias, get_args

from torch import Tensor

from v2m.ops.arguments import check_flags, check_tensors, described
from v2m.ops.directional_pass import operator
from v2m.ops.directional_pass.reference import directional_pass_reference
from v2m.ops.dispatch import Implementation, choose_implementation
from v2m.ops.kernels import PassGradients, PassInputs
from v2m.ops.scan.interface import Axis

Selects: TypeAlias = Literal["B", "C"]
"""Which of the scan's input and output weights depend on the input; the other ones are 1."""


def directional_pass(
    x: Tensor,
    gate: Tensor,
    conv_weight: Tensor,
    conv_bias: Tensor,
    proj_weight: Tensor,
    delta_weight: Tensor,
    delta_bias: Tensor,
    A: Tensor,
    D: Tensor,
    *,
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
        gate: Factor of the output ``[B, H, W, D]``.
        conv_weight: Kernel of every channel ``[D, K]``; the last tap meets the cell itself.
        conv_bias: ``[D]``.
        proj_weight: ``[R + N, D]``.
        delta_weight: ``[D, R]``.
        delta_bias: ``[D]``.
        A: Decay rates ``[D, N]``, negative, per grid cell.
        D: Skip weight ``[D]``.
        selects: ``"B"`` (the paper's first pass) or ``"C"`` (its second).
        axis: ``"row"`` to run along W, ``"col"`` to run along H.
        reverse: Start from the last cell of each line; outputs stay on the cell of their input.
        implementation: As in ``selective_scan``.

    Returns:
        ``[B, H, W, D]``, with the dtype and device of ``x``.

    Raises:
        TypeError: an argument is no dense floating point tensor, or ``reverse`` no flag.
        ValueError: a shape, a device, ``selects``, ``axis`` or ``implementation`` is wrong.
    """
    p = PassInputs(
        x, gate, conv_weight, conv_bias, proj_weight, delta_weight, delta_bias, A, D, selects, axis, reverse
    )
    _check(p)
    chosen = choose_implementation("directional_pass", x, implementation)
    return directional_pass_reference(p) if chosen == "reference" else operator.directional_pass(*p, chosen)


def _check(p: PassInputs) -> None:
    for name, value, choices in (("selects", p.selects, Selects), ("axis", p.axis, Axis)):
        if not isinstance(value, str) or value not in get_args(choices):
            first, second = get_args(choices)
            raise ValueError(
                f"directional_pass: {name} is {described(value)}, expected {first!r} or {second!r}"
            )
    check_flags("directional_pass", reverse=p.reverse)
    check_tensors("directional_pass", {name: getattr(p, name) for name in PassGradients._fields})
    if p.x.ndim != 4 or 0 in p.x.shape[1:]:
        raise ValueError(
            f"directional_pass: x has shape {list(p.x.shape)}, expected a non-empty map [B, H, W, D]"
        )
    for name, meaning in (("conv_weight", "[D, K]"), ("delta_weight", "[D, R]"), ("A", "[D, N]")):
        if getattr(p, name).ndim != 2:  # their sizes are what the others are compared with
            got = list(getattr(p, name).shape)
            raise ValueError(f"directional_pass: {name} has shape {got}, expected {meaning}")
    channels, states = p.x.shape[-1], p.A.shape[-1]
    rank, taps = p.delta_weight.shape[-1], max(1, p.conv_weight.shape[-1])
    for name, shape, meaning in (
        ("gate", tuple(p.x.shape), "as x"),
        ("conv_weight", (channels, taps), "[D, K]"),
        ("conv_bias", (channels,), "[D]"),
        ("proj_weight", (rank + states, channels), "[R + N, D]"),
        ("delta_weight", (channels, rank), "[D, R]"),
        ("delta_bias", (channels,), "[D]"),
        ("A", (channels, states), "[D, N]"),
        ("D", (channels,), "[D]"),
    ):
        value = getattr(p, name)
        if tuple(value.shape) != shape:
            raise ValueError(
                f"directional_pass: {name} has shape {list(value.shape)}, expected {list(shape)} ({meaning})"
            )
