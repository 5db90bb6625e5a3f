"""What a two-dimensional scan takes.

Shapes: B batch, H grid height, W grid width, D channels, N state size.
"""

from math import prod
from typing import Annotated, Any, NamedTuple

from torch import Tensor

from v2m.ops.flops import PER_UPDATE, Flops


class Scan2dInputs(NamedTuple):
    """What an exact two-dimensional scan depends on; see ``v2m.selective_scan_2d``.

    The gradients that kernels return are a record of this type too, each in the place of its tensor.

    Attributes:
        u: Input map.
        delta_row: Step sizes along W, before softplus.
        delta_col: Step sizes along H likewise.
        A_row: Rates of the row states; of shape ``[D]`` as in ``ScanInputs``.
        A_col: Rates of the column states, of the same shape.
        B_row: Input weights of the row states.
        B_col: Input weights of the column states.
        C_row: Output weights of the row states.
        C_col: Output weights of the column states.
        coupling_row: Share of the column state in what a row state goes on from.
        coupling_col: Share of the row state in what a column state goes on from.
        delta_softplus: Pass the step sizes through softplus.
        reverse_row: Start from the last column.
        reverse_col: Start from the last row.
        sweeps: Jacobi sweeps towards the coupled states; None for the coupled states themselves.
    """

    u: Annotated[Tensor, "B, H, W, D"]
    delta_row: Annotated[Tensor, "B, H, W, D"]
    delta_col: Annotated[Tensor, "B, H, W, D"]
    A_row: Annotated[Tensor, "D, N or D"]
    A_col: Annotated[Tensor, "D, N or D"]
    B_row: Annotated[Tensor, "B, H, W, N"]
    B_col: Annotated[Tensor, "B, H, W, N"]
    C_row: Annotated[Tensor, "B, H, W, N"]
    C_col: Annotated[Tensor, "B, H, W, N"]
    coupling_row: Annotated[Tensor, "B, H, W, N"]
    coupling_col: Annotated[Tensor, "B, H, W, N"]
    delta_softplus: bool
    reverse_row: bool
    reverse_col: bool
    sweeps: int | None

    @property
    def states(self) -> int:
        """The state size N."""
        return self.B_row.shape[-1]

    @property
    def levels(self) -> int:
        """Iterates that are carried along, one for the coupled states.

        Once they are as many as the steps from corner to corner, further sweeps change nothing.
        """
        return 1 if self.sweeps is None else 1 + min(self.sweeps, self.u.shape[1] + self.u.shape[2] - 2)

    def with_tensors(self, *tensors: Tensor) -> "Scan2dInputs":
        """The record with other tensors in the places of all of them."""
        return Scan2dInputs._make((*tensors, *self[len(tensors) :]))


def scan_2d_flops(s: Any) -> Flops:
    """Operations of a scan of ``Scan2dInputs``, with shapes in place of tensors."""
    scans = 2 if s.sweeps is None else 2 * (1 + s.sweeps)
    return Flops(layers=0, scans=scans * PER_UPDATE * prod(s.u) * s.B_row[-1])
