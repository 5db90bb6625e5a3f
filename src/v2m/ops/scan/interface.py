"""Public entry of the selective scan, and its registration."""

from torch import Tensor

from v2m.ops.dispatch import Implementation
from v2m.ops.gate import activated, check_gate
from v2m.ops.registration import Operator
from v2m.ops.scan.arguments import Axis, ScanInputs, scan_flops
from v2m.ops.scan.reference import selective_scan_reference


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
    gate: Tensor | None = None,
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

    Rates ``A`` of shape ``[D]`` are geometric: those of the states are multiples, ``(n + 1) * A[d]`` for n
    from 0, so the decays of a channel are the powers of one exponential, ``exp(dt * A[d]) ** (n + 1)``.

    Lines are independent, of any length and number. States and decays are float32 (float64 if ``u`` is),
    whatever the dtypes of the arguments. Where they cannot hold a result it is inf or NaN, and so it is where
    it depends on an argument that is. Of no images the result is empty; a map has a cell and a channel.

    Shapes: B batch, H grid height, W grid width, D channels, N state size.

    Args:
        u: Input map ``[B, H, W, D]``; float32, float64, bfloat16 or float16.
        delta: Step sizes ``[B, H, W, D]``, in grid cells; positive after bias and softplus.
        A: Continuous-time decay rates ``[D, N]``, or ``[D]`` for geometric ones; negative, per grid cell.
        B: Input weights ``[B, H, W, N]``, shared by the channels; None for the constant 1.
        C: Output weights ``[B, H, W, N]``, shared by the channels; None for the constant 1.
        D: Skip weight ``[D]``; None for no skip.
        z: Gate before its activation ``[B, H, W, D]``, applied as ``silu(z)``; None for no gate.
        delta_bias: Added to ``delta`` first, ``[D]``.
        delta_softplus: Pass ``delta`` (with its bias) through softplus.
        gate: Factor of the output ``[B, H, W, D]``, taken as it is, in place of ``z``.
        axis: ``"row"`` to run along W, ``"col"`` to run along H.
        reverse: Start from the last cell of each line; outputs stay on the cell of their input.
        implementation: ``"reference"``, ``"cpu"``, ``"triton"`` or ``"pytorch"``; by default the fastest for
            the device. Higher derivatives, forward-mode ones and the transforms of ``torch.func`` are those
            of the reference, which is slow; what is asked for by name refuses the latter two.

    Returns:
        ``[B, H, W, D]``, with the dtype and device of ``u``.

    Raises:
        TypeError: an argument is no dense floating point tensor, a flag is no bool, or ``gate`` and ``z`` are
            both given.
        ValueError: a shape, a device, ``axis`` or ``implementation`` is wrong, or ``A`` is ``[D]`` and
            neither ``B`` nor ``C``, which have N, is given; the message names the argument, what it got
            and what was expected.

    Example:
        >>> import torch
        >>> u = torch.ones(1, 2, 3, 4)
        >>> y = selective_scan(u, 0.5 * u, A=-torch.ones(4, 1), axis="row")
        >>> y[0, :, :, 0]
        tensor([[0.5000, 0.8033, 0.9872],
                [0.5000, 0.8033, 0.9872]])
    """
    check_gate("selective_scan", gate, z)
    s = ScanInputs(u, delta, A, B, C, D, gate if z is None else z, delta_bias, delta_softplus, axis, reverse)
    SCAN.check(s, aliases={} if z is None else {"gate": "z"})
    if z is not None:
        s = s._replace(gate=activated(z))
    return SCAN(s, implementation)


SCAN = Operator(
    "selective_scan",
    ScanInputs,
    oracle=selective_scan_reference,
    kernels="scan",
    flops=scan_flops,
    sums={"delta_bias": "delta"},
)
