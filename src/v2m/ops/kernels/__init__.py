"""Kernels: the computations of the operators for one kind of device per module, without autograd.

``cpu`` (C++), ``triton`` (GPUs) and ``pytorch`` (anything) have the same four functions, which compute in
float32: ``scan_forward``, ``scan_backward``, ``pass_forward`` and ``pass_backward``.

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
