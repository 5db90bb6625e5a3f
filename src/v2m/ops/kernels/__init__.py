"""Kernels: the computations of the operators for one kind of device per module, without autograd.

``cpu`` (C++), ``triton`` (GPUs) and ``pytorch`` (anything) have the same six functions, which compute in
float32: ``scan_forward``, ``pass_forward``, ``scan_2d_forward``, and ``..._backward`` of each.

Shapes: B batch, H grid height, W grid width, D channels, N state size, R rank of the step size, K taps.
"""

from typing import NamedTuple

from torch import Tensor


class ScanInputs(NamedTuple):
    """What a selective scan depends on; None for what is left out.

    Attributes:
        u: Input map ``[B, H, W, D]``.
        delta: Step sizes before bias and softplus ``[B, H, W, D]``; with ``delta_weight`` ``[B, H, W, R]``.
        A: Rates ``[D, N]``.
        B: Input weights ``[B, H, W, N]``.
        C: Output weights ``[B, H, W, N]``.
        D: Skip weight ``[D]``.
        gate: Factor of the output ``[B, H, W, D]``.
        delta_weight: Matrix from the low-rank ``delta`` to the channels ``[D, R]``.
        delta_bias: Added to the step sizes ``[D]``.
        delta_softplus: Pass the step sizes through softplus.
        axis: ``"row"`` or ``"col"``.
        reverse: Start from the last cell of each line.
    """

    u: Tensor
    delta: Tensor
    A: Tensor
    B: Tensor | None
    C: Tensor | None
    D: Tensor | None
    gate: Tensor | None
    delta_weight: Tensor | None
    delta_bias: Tensor | None
    delta_softplus: bool
    axis: str
    reverse: bool


class PassInputs(NamedTuple):
    """What a directional pass depends on; see ``v2m.ops.directional_pass``."""

    x: Tensor
    gate: Tensor
    conv_weight: Tensor
    conv_bias: Tensor
    proj_weight: Tensor
    delta_weight: Tensor
    delta_bias: Tensor
    A: Tensor
    D: Tensor
    selects: str
    axis: str
    reverse: bool

    def scan_inputs(self, s: Tensor, projected: Tensor) -> ScanInputs:
        """The scan of ``s``, the convolved input, with what was projected from it ``[B, H, W, R + N]``."""
        rank = self.delta_weight.shape[1]
        delta, selected = projected[..., :rank], projected[..., rank:]
        B, C = (selected, None) if self.selects == "B" else (None, selected)
        return ScanInputs(
            s,
            delta,
            self.A,
            B,
            C,
            self.D,
            self.gate,
            self.delta_weight,
            self.delta_bias,
            True,
            self.axis,
            self.reverse,
        )


class Scan2dInputs(NamedTuple):
    """What an exact two-dimensional scan depends on; see ``v2m.selective_scan_2d``.

    Attributes:
        u: Input map ``[B, H, W, D]``.
        delta_row: Step sizes along W, before softplus, ``[B, H, W, D]``.
        delta_col: Step sizes along H likewise.
        A_row: Rates of the row states ``[D, N]``.
        A_col: Rates of the column states ``[D, N]``.
        B_row: Input weights of the row states ``[B, H, W, N]``.
        B_col: Input weights of the column states ``[B, H, W, N]``.
        C_row: Output weights of the row states ``[B, H, W, N]``.
        C_col: Output weights of the column states ``[B, H, W, N]``.
        coupling_row: Share of the column state in what a row state goes on from ``[B, H, W, N]``.
        coupling_col: Share of the row state in what a column state goes on from ``[B, H, W, N]``.
        delta_softplus: Pass the step sizes through softplus.
        reverse_row: Start from the last column.
        reverse_col: Start from the last row.
        sweeps: Jacobi sweeps towards the coupled states; None for the coupled states themselves.
    """

    u: Tensor
    delta_row: Tensor
    delta_col: Tensor
    A_row: Tensor
    A_col: Tensor
    B_row: Tensor
    B_col: Tensor
    C_row: Tensor
    C_col: Tensor
    coupling_row: Tensor
    coupling_col: Tensor
    delta_softplus: bool
    reverse_row: bool
    reverse_col: bool
    sweeps: int | None

    @property
    def levels(self) -> int:
        """Iterates that are carried along, one for the coupled states.

        Once they are as many as the steps from corner to corner, further sweeps change nothing.
        """
        return 1 if self.sweeps is None else 1 + min(self.sweeps, self.u.shape[1] + self.u.shape[2] - 2)


class ScanGradients(NamedTuple):
    """Gradients of ``ScanInputs``; None for what is left out.

    ``delta`` is that of the step sizes before bias and softplus, ``[B, H, W, D]`` in any case.
    """

    u: Tensor
    delta: Tensor
    A: Tensor
    B: Tensor | None
    C: Tensor | None
    D: Tensor | None
    gate: Tensor | None


class PassGradients(NamedTuple):
    """Gradients of the tensors of ``PassInputs``."""

    x: Tensor
    gate: Tensor
    conv_weight: Tensor
    conv_bias: Tensor
    proj_weight: Tensor
    delta_weight: Tensor
    delta_bias: Tensor
    A: Tensor
    D: Tensor


class Scan2dGradients(NamedTuple):
    """Gradients of the tensors of ``Scan2dInputs``."""

    u: Tensor
    delta_row: Tensor
    delta_col: Tensor
    A_row: Tensor
    A_col: Tensor
    B_row: Tensor
    B_col: Tensor
    C_row: Tensor
    C_col: Tensor
    coupling_row: Tensor
    coupling_col: Tensor
