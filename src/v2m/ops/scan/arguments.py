"""What a selective scan takes.

Shapes: B batch, H grid height, W grid width, D channels, N state size, R rank of the step size.
"""

from collections.abc import Sequence
from math import prod
from typing import Annotated, Any, Literal, NamedTuple, TypeAlias

from torch import Tensor

from v2m.ops.flops import PER_UPDATE, Flops

Axis: TypeAlias = Literal["row", "col"]
"""``row``: the recurrence runs along W, within a row. ``col``: along H, within a column."""


class ScanInputs(NamedTuple):
    """What a selective scan depends on; None for what is left out.

    The gradients that kernels return are a record of this type too, each in the place of its tensor.

    Attributes:
        u: Input map.
        delta: Step sizes before bias and softplus; with ``delta_weight`` ``[B, H, W, R]``.
        A: Rates; of shape ``[D]`` those of the first state, the multiples of which the others have.
        B: Input weights.
        C: Output weights.
        D: Skip weight.
        gate: Factor of the output.
        delta_bias: Added to the step sizes. Its gradient, the sum of that of ``delta``, is left out by
            kernels.
        delta_softplus: Pass the step sizes through softplus.
        axis: ``"row"`` or ``"col"``.
        reverse: Start from the last cell of each line.
        delta_weight: Matrix from a low-rank ``delta`` to the channels ``[D, R]``. The operator has no such
            argument: only a directional pass scans with it. The gradient of ``delta`` is then that of the
            product, ``[B, H, W, D]``, and kernels leave out that of the matrix.
    """

    u: Annotated[Tensor, "B, H, W, D"]
    delta: Annotated[Tensor, "B, H, W, D"]
    A: Annotated[Tensor, "D, N or D"]
    B: Annotated[Tensor | None, "B, H, W, N"]
    C: Annotated[Tensor | None, "B, H, W, N"]
    D: Annotated[Tensor | None, "D"]
    gate: Annotated[Tensor | None, "B, H, W, D"]
    delta_bias: Annotated[Tensor | None, "D"]
    delta_softplus: bool
    axis: Axis
    reverse: bool
    delta_weight: Tensor | None = None

    @property
    def states(self) -> int:
        """The state size N."""
        B, C = (None if x is None else x.shape for x in (self.B, self.C))
        return scan_states(self.A.shape, B, C)


def scan_states(A: Sequence[int], B: Sequence[int] | None, C: Sequence[int] | None) -> int:
    """The state size N, from the shapes of rates and weights."""
    if len(A) == 2:
        return A[1]
    given = C if B is None else B
    assert given is not None
    return given[-1]


def scan_flops(s: Any) -> Flops:
    """Operations of a scan of ``ScanInputs``, with shapes in place of tensors."""
    return Flops(layers=0, scans=PER_UPDATE * prod(s.u) * scan_states(s.A, s.B, s.C))
