"""Registration of the selective scan with PyTorch, as ``v2m::selective_scan`` and its backward.

Autograd, ``torch.compile`` and ``torch.export`` see one node of known shapes. The kernels are chosen when it
runs, so an exported program runs wherever this package does. Under autocast it takes float32.
"""

from collections.abc import Sequence
from math import prod
from typing import Any

import torch
from torch import Tensor

from v2m.ops.dispatch import differentiable_gradients, kernels_for
from v2m.ops.flops import PER_UPDATE, Flops, counted
from v2m.ops.kernels import ScanGradients, ScanInputs
from v2m.ops.scan.reference import selective_scan_reference

ARGUMENTS = (
    "Tensor u, Tensor delta, Tensor A, Tensor? B, Tensor? C, Tensor? D, Tensor? gate, Tensor? delta_bias, "
    "bool delta_softplus, str axis, bool reverse, str? implementation"
)
GRADIENTS = len(ScanGradients._fields)
TENSORS = GRADIENTS + 1  # and delta_bias


@torch.library.custom_op("v2m::selective_scan", mutates_args=(), schema=f"({ARGUMENTS}) -> Tensor")
def scan(*inputs: Any) -> Tensor:
    """The output of a scan of ``ScanInputs`` without a ``delta_weight``, contiguous."""
    s = _scan_inputs(inputs)
    return kernels_for(s.u.device, inputs[-1]).scan_forward(s).contiguous()


def _scan_inputs(inputs: Sequence[Any]) -> ScanInputs:
    *values, _implementation = inputs
    values.insert(GRADIENTS, None)
    return ScanInputs(*values)


@scan.register_fake
def _(u: Tensor, *inputs: Any) -> Tensor:
    return torch.empty(u.shape, dtype=u.dtype, device=u.device)


@torch.library.custom_op(
    "v2m::selective_scan_backward",
    mutates_args=(),
    schema=f"(Tensor grad, {ARGUMENTS}) -> ({', '.join(['Tensor'] * GRADIENTS)})",
)
def scan_backward(grad: Tensor, *inputs: Any) -> tuple[Tensor, ...]:
    """``ScanGradients`` in float32, contiguous; tensors without elements for what is left out."""
    grads = kernels_for(grad.device, inputs[-1]).scan_backward(grad, _scan_inputs(inputs))
    return tuple(
        grad.new_empty(0, dtype=torch.float32) if g is None else g.float().contiguous() for g in grads
    )


@scan_backward.register_fake
def _(grad: Tensor, u: Tensor, delta: Tensor, *inputs: Any) -> tuple[Tensor, ...]:
    like = (u, u, *inputs[: GRADIENTS - 2])
    shapes = ((0,) if tensor is None else tensor.shape for tensor in like)
    return tuple(torch.empty(shape, dtype=torch.float32, device=u.device) for shape in shapes)


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.save_for_backward(*inputs[:TENSORS])
    ctx.settings = inputs[TENSORS:]


def _backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    tensors, settings = ctx.saved_tensors, ctx.settings
    grads: Sequence[Tensor | None]
    if torch.is_grad_enabled():  # create_graph=True
        grads = differentiable_gradients(
            lambda x: selective_scan_reference(*x, *settings[:-1]), tensors, grad
        )
    else:
        of_kernels = ScanGradients(*scan_backward(grad, *tensors, *settings))
        dbias = of_kernels.delta.sum((0, 1, 2)) if ctx.needs_input_grad[GRADIENTS] else None
        grads = [
            None if tensor is None or g is None else g.to(tensor.dtype)
            for tensor, g in zip(tensors, (*of_kernels, dbias), strict=True)
        ]
    return (*grads, *(None,) * len(settings))


scan.register_autograd(_backward, setup_context=_setup_context)
for device in ("cpu", "cuda"):
    scan.register_autocast(device, torch.float32)
    scan_backward.register_autocast(device, torch.float32)


@counted(torch.ops.v2m.selective_scan, torch.ops.v2m.selective_scan_backward)
def _flops(u: Sequence[int], _delta: Any, A: Sequence[int], *_: Any) -> Flops:
    return Flops(layers=0, scans=PER_UPDATE * prod(u[:-1]) * prod(A))
