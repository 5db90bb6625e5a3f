"""A directional pass made of a convolution, a matrix product and a scan, where no kernel does it at once."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from v2m.ops.directional.arguments import PassInputs
from v2m.ops.scan.arguments import ScanInputs

ConvForward = Callable[[Tensor, Tensor, Tensor, str, bool], Tensor]
ConvBackward = Callable[[Tensor, Tensor, Tensor, Tensor, str, bool], tuple[Tensor, Tensor, Tensor]]


def compose_forward(
    p: PassInputs, conv_silu_forward: ConvForward, scan_forward: Callable[[ScanInputs], Tensor]
) -> Tensor:
    """The output ``[B, H, W, D]``."""
    s = conv_silu_forward(p.x, p.conv_weight, p.conv_bias, p.axis, p.reverse)
    return scan_forward(p.scan_inputs(s, F.linear(s, p.proj_weight.to(s.dtype))))


def compose_backward(
    grad: Tensor,
    p: PassInputs,
    conv_silu_forward: ConvForward,
    conv_silu_backward: ConvBackward,
    scan_backward: Callable[[Tensor, ScanInputs], ScanInputs],
) -> PassInputs:
    """The gradients of the tensors, given that of the output; convolution and projection are done again."""
    s = conv_silu_forward(p.x, p.conv_weight, p.conv_bias, p.axis, p.reverse)
    dtype, proj_weight, delta_weight = s.dtype, p.proj_weight.to(s.dtype), p.delta_weight.to(s.dtype)
    scan = p.scan_inputs(s, F.linear(s, proj_weight))
    grads = scan_backward(grad, scan)
    # Through the projections: the low-rank steps and the selected weights come from one product with s.
    slopes = grads.delta.flatten(0, 2).to(dtype)
    dselected = grads.C if grads.B is None else grads.B
    assert dselected is not None
    dprojected = torch.cat([slopes @ delta_weight, dselected.flatten(0, 2).to(dtype)], dim=-1)
    # s is the input of the scan and of the projection.
    ds = torch.addmm(grads.u.flatten(0, 2).to(dtype), dprojected, proj_weight).view(p.x.shape)
    dx, dconv_weight, dconv_bias = conv_silu_backward(ds, p.x, p.conv_weight, p.conv_bias, p.axis, p.reverse)
    assert grads.gate is not None
    assert grads.D is not None
    return p._replace(
        x=dx,
        gate=grads.gate,
        conv_weight=dconv_weight,
        conv_bias=dconv_bias,
        proj_weight=dprojected.T @ s.flatten(0, 2),
        delta_weight=slopes.T @ scan.delta.flatten(0, 2),
        delta_bias=grads.delta.sum((0, 1, 2)),
        A=grads.A,
        D=grads.D,
    )
