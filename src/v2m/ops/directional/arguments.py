"""What a directional pass takes.

Shapes: B batch, H grid height, W grid width, D channels, K taps, R rank of the step size, N state size.
"""

from math import prod
from typing import Annotated, Any, Literal, NamedTuple, TypeAlias

from torch import Tensor

from v2m.ops.flops import PER_UPDATE, Flops
from v2m.ops.scan.arguments import Axis, ScanInputs

Selects: TypeAlias = Literal["B", "C"]
"""Which of the scan's input and output weights depend on the input; the other ones are 1."""


class PassInputs(NamedTuple):
    """What a directional pass depends on; see ``v2m.ops.directional_pass``.

    The gradients that kernels return are a record of this type too, each in the place of its tensor.
    """

    x: Annotated[Tensor, "B, H, W, D"]
    gate: Annotated[Tensor, "B, H, W, D"]
    conv_weight: Annotated[Tensor, "D, K"]
    conv_bias: Annotated[Tensor, "D"]
    proj_weight: Annotated[Tensor, "R + N, D"]
    delta_weight: Annotated[Tensor, "D, R"]
    delta_bias: Annotated[Tensor, "D"]
    A: Annotated[Tensor, "D, N or D"]
    D: Annotated[Tensor, "D"]
    selects: Selects
    axis: Axis
    reverse: bool

    @property
    def states(self) -> int:
        """The state size N."""
        return self.proj_weight.shape[0] - self.delta_weight.shape[1]

    def scan_inputs(self, s: Tensor, projected: Tensor) -> ScanInputs:
        """The scan of ``s``, the convolved input, with what was projected from it ``[B, H, W, R + N]``."""
        rank = self.delta_weight.shape[1]
        delta, selected = projected[..., :rank], projected[..., rank:]
        return ScanInputs(
            u=s,
            delta=delta,
            A=self.A,
            B=selected if self.selects == "B" else None,
            C=selected if self.selects == "C" else None,
            D=self.D,
            gate=self.gate,
            delta_bias=self.delta_bias,
            delta_softplus=True,
            axis=self.axis,
            reverse=self.reverse,
            delta_weight=self.delta_weight,
        )


def pass_flops(p: Any) -> Flops:
    """Operations of a pass of ``PassInputs``, with shapes in place of tensors."""
    tokens = prod(p.x[:-1])
    layers = prod(p.conv_weight) + prod(p.proj_weight) + prod(p.delta_weight)
    return Flops(tokens * layers, PER_UPDATE * prod(p.x) * (p.proj_weight[0] - p.delta_weight[1]))
