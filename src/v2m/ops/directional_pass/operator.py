"""Registration of the directional pass with PyTorch, as ``v2m::directional_pass`` and its backward.

Nothing but the arguments is kept for the backward, which computes again what it needs.
"""

from collections.abc import Sequence
from math import prod
from typing import Any

import torch
from torch import Tensor

from v2m.ops.directional_pass.reference import directional_pass_reference
from v2m.ops.dispatch import differentiable_gradients, kernels_for
from v2m.ops.flops import PER_UPDATE, Flops, counted
from v2m.ops.kernels import PassGradients, PassInputs

ARGUMENTS = (
    "Tensor x, Tensor gate, Tensor conv_weight, Tensor conv_bias, Tensor proj_weight, Tensor delta_weight, "
    "Tensor delta_bias, Tensor A, Tensor D, str selects, str axis, bool reverse, str? implementation"
)
TENSORS = len(PassGradients._fields)


@torch.library.custom_op("v2m::directional_pass", mutates_args=(), schema=f"({ARGUMENTS}) -> Tensor")
def directional_pass(*inputs: Any) -> Tensor:
    """The output of ``PassInputs``, contiguous."""
    *values, implementation = inputs
    p = PassInputs(*values)
    return kernels_for(p.x.device, implementation).pass_forward(p).contiguous()


@directional_pass.register_fake
def _(x: Tensor, *inputs: Any) -> Tensor:
    return torch.empty(x.shape, dtype=x.dtype, device=x.device)


@torch.library.custom_op(
    "v2m::directional_pass_backward",
    mutates_args=(),
    schema=f"(Tensor grad, {ARGUMENTS}) -> ({', '.join(['Tensor'] * TENSORS)})",
)
def directional_pass_backward(grad: Tensor, *inputs: Any) -> tuple[Tensor, ...]:
    """Gradients of the tensors, like them and contiguous."""
    *values, implementation = inputs
    p = PassInputs(*values)
    grads = kernels_for(grad.device, implementation).pass_backward(grad, p)
    return tuple(g.to(x.dtype).contiguous() for g, x in zip(grads, inputs[:TENSORS], strict=True))


@directional_pass_backward.register_fake
def _(grad: Tensor, *inputs: Any) -> tuple[Tensor, ...]:
    return tuple(
        torch.empty(tensor.shape, dtype=tensor.dtype, device=grad.device) for tensor in inputs[:TENSORS]
    )


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.save_for_backward(*inputs[:TENSORS])
    ctx.settings = inputs[TENSORS:]


def _backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    tensors, settings = ctx.saved_tensors, ctx.settings
    grads: Sequence[Tensor | None]
    if torch.is_grad_enabled():  # create_graph=True
        grads = differentiable_gradients(
            lambda x: directional_pass_reference(PassInputs(*x, *settings[:-1])), tensors, grad
        )
    else:
        grads = directional_pass_backward(grad, *tensors, *settings)
    return (*grads, *(None,) * len(settings))


directional_pass.register_autograd(_backward, setup_context=_setup_context)
for device in ("cpu", "cuda"):
    directional_pass.register_autocast(device, torch.float32)
    directional_pass_backward.register_autocast(device, torch.float32)


@counted(torch.ops.v2m.directional_pass, torch.ops.v2m.directional_pass_backward)
def _flops(*inputs: Any) -> Flops:
    x, _gate, conv, _conv_bias, proj, delta, _delta_bias, A, *_rest = inputs
    tokens = prod(x[:-1])
    return Flops(tokens * (prod(conv) + prod(proj) + prod(delta)), PER_UPDATE * tokens * prod(A))
