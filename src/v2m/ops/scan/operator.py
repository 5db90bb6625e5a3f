"""Registration of the selective scan with PyTorch, as ``v2m::selective_scan`` and its backward.

Autograd, ``torch.compile`` and ``torch.export`` see one node of known shapes. The kernels are chosen when it
runs, so an exported program runs wherever this package does. Under autocast it takes float32.
"""

from typing import Any

import torch
from torch import Tensor

from v2m.ops.dispatch import kernels_for
from v2m.ops.kernels import ScanGradients, ScanInputs


@torch.library.custom_op("v2m::selective_scan", mutates_args=())
def scan(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor | None,
    C: Tensor | None,
    D: Tensor | None,
    gate: Tensor | None,
    delta_bias: Tensor | None,
    delta_softplus: bool,
    axis: str,
    reverse: bool,
    implementation: str | None,
) -> Tensor:
    """The output of a scan of ``ScanInputs``, contiguous."""
    s = ScanInputs(u, delta, A, B, C, D, gate, None, delta_bias, delta_softplus, axis, reverse)
    return kernels_for(u.device, implementation).scan_forward(s).contiguous()


@scan.register_fake
def _(u: Tensor, *inputs: Any) -> Tensor:
    return torch.empty(u.shape, dtype=u.dtype, device=u.device)


@torch.library.custom_op("v2m::selective_scan_backward", mutates_args=())
def scan_backward(
    grad: Tensor,
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor | None,
    C: Tensor | None,
    D: Tensor | None,
    gate: Tensor | None,
    delta_bias: Tensor | None,
    delta_softplus: bool,
    axis: str,
    reverse: bool,
    implementation: str | None,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """``ScanGradients`` in float32, contiguous; tensors without elements for what is left out."""
    s = ScanInputs(u, delta, A, B, C, D, gate, None, delta_bias, delta_softplus, axis, reverse)
    grads = kernels_for(u.device, implementation).scan_backward(grad, s)
    du, ddelta, dA, dB, dC, dD, dgate = (
        u.new_empty(0, dtype=torch.float32) if g is None else g.float().contiguous() for g in grads
    )
    return du, ddelta, dA, dB, dC, dD, dgate


@scan_backward.register_fake
def _(
    grad: Tensor,
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor | None,
    C: Tensor | None,
    D: Tensor | None,
    gate: Tensor | None,
    *inputs: Any,
) -> tuple[Tensor, ...]:
    like = (u, u, A, B, C, D, gate)
    shapes = ((0,) if tensor is None else tensor.shape for tensor in like)
    return tuple(torch.empty(shape, dtype=torch.float32, device=u.device) for shape in shapes)


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.save_for_backward(*inputs[:8])
    ctx.settings = inputs[8:]


def _backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    tensors = ctx.saved_tensors
    grads = ScanGradients(*scan_backward(grad, *tensors, *ctx.settings))
    dbias = grads.delta.sum((0, 1, 2)) if ctx.needs_input_grad[7] else None
    return tuple(
        None if tensor is None or g is None else g.to(tensor.dtype)
        for tensor, g in zip(tensors, (*grads, dbias), strict=True)
    ) + (None,) * len(ctx.settings)


scan.register_autograd(_backward, setup_context=_setup_context)
for device in ("cpu", "cuda"):
    scan.register_autocast(device, torch.float32)
    scan_backward.register_autocast(device, torch.float32)
