"""Registration of the two-dimensional scan with PyTorch, as ``v2m::selective_scan_2d`` and its backward.

As in ``v2m.ops.scan.operator``: one node of known shapes, kernels chosen when it runs, float32 under
autocast.
"""

from collections.abc import Sequence
from math import prod
from typing import Any

import torch
from torch import Tensor

from v2m.ops.dispatch import differentiable_gradients, kernels_for
from v2m.ops.flops import PER_UPDATE, Flops, counted
from v2m.ops.kernels import Scan2dGradients, Scan2dInputs
from v2m.ops.scan_2d.reference import selective_scan_2d_reference

ARGUMENTS = (
    "Tensor u, Tensor delta_row, Tensor delta_col, Tensor A_row, Tensor A_col, Tensor B_row, Tensor B_col, "
    "Tensor C_row, Tensor C_col, Tensor coupling_row, Tensor coupling_col, bool delta_softplus, "
    "bool reverse_row, bool reverse_col, int? sweeps, str? implementation"
)
TENSORS = len(Scan2dGradients._fields)


@torch.library.custom_op("v2m::selective_scan_2d", mutates_args=(), schema=f"({ARGUMENTS}) -> Tensor")
def scan_2d(*inputs: Any) -> Tensor:
    """The output of a scan of ``Scan2dInputs``, contiguous."""
    *values, implementation = inputs
    s = Scan2dInputs(*values)
    return kernels_for(s.u.device, implementation).scan_2d_forward(s).contiguous()


@scan_2d.register_fake
def _(u: Tensor, *inputs: Any) -> Tensor:
    return torch.empty(u.shape, dtype=u.dtype, device=u.device)


@torch.library.custom_op(
    "v2m::selective_scan_2d_backward",
    mutates_args=(),
    schema=f"(Tensor grad, {ARGUMENTS}) -> ({', '.join(['Tensor'] * TENSORS)})",
)
def scan_2d_backward(grad: Tensor, *inputs: Any) -> tuple[Tensor, ...]:
    """``Scan2dGradients`` in float32, contiguous."""
    *values, implementation = inputs
    grads = kernels_for(grad.device, implementation).scan_2d_backward(grad, Scan2dInputs(*values))
    return tuple(g.float().contiguous() for g in grads)


@scan_2d_backward.register_fake
def _(grad: Tensor, *inputs: Any) -> tuple[Tensor, ...]:
    return tuple(torch.empty(x.shape, dtype=torch.float32, device=x.device) for x in inputs[:TENSORS])


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.save_for_backward(*inputs[:TENSORS])
    ctx.settings = inputs[TENSORS:]


def _backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    tensors, settings = ctx.saved_tensors, ctx.settings
    grads: Sequence[Tensor | None]
    if torch.is_grad_enabled():  # create_graph=True
        grads = differentiable_gradients(
            lambda x: selective_scan_2d_reference(Scan2dInputs(*x, *settings[:-1])), tensors, grad
        )
    else:
        of_kernels = scan_2d_backward(grad, *tensors, *settings)
        grads = [g.to(x.dtype) for x, g in zip(tensors, of_kernels, strict=True)]
    return (*grads, *(None,) * len(settings))


scan_2d.register_autograd(_backward, setup_context=_setup_context)
for device in ("cpu", "cuda"):
    scan_2d.register_autocast(device, torch.float32)
    scan_2d_backward.register_autocast(device, torch.float32)


@counted(torch.ops.v2m.selective_scan_2d, torch.ops.v2m.selective_scan_2d_backward)
def _flops(*inputs: Any) -> Flops:
    u, _delta_row, _delta_col, A, *_rest, sweeps, _implementation = inputs
    scans = 2 if sweeps is None else 2 * (1 + sweeps)
    return Flops(layers=0, scans=scans * PER_UPDATE * prod(u[:-1]) * prod(A))
