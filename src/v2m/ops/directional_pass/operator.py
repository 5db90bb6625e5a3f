"""Registration of the directional pass with PyTorch, as ``v2m::directional_pass`` and its backward.

Nothing but the arguments is kept for the backward, which computes again what it needs.
"""

from typing import Any

import torch
from torch import Tensor

from v2m.ops.dispatch import kernels_for
from v2m.ops.kernels import PassInputs


@torch.library.custom_op("v2m::directional_pass", mutates_args=())
def directional_pass(
    x: Tensor,
    gate: Tensor,
    conv_weight: Tensor,
    conv_bias: Tensor,
    proj_weight: Tensor,
    delta_weight: Tensor,
    delta_bias: Tensor,
    A: Tensor,
    D: Tensor,
    selects: str,
    axis: str,
    reverse: bool,
    implementation: str | None,
) -> Tensor:
    """The output of ``PassInputs``, contiguous."""
    p = PassInputs(
        x, gate, conv_weight, conv_bias, proj_weight, delta_weight, delta_bias, A, D, selects, axis, reverse
    )
    return kernels_for(x.device, implementation).pass_forward(p).contiguous()


@directional_pass.register_fake
def _(x: Tensor, *inputs: Any) -> Tensor:
    return torch.empty(x.shape, dtype=x.dtype, device=x.device)


@torch.library.custom_op("v2m::directional_pass_backward", mutates_args=())
def directional_pass_backward(
    grad: Tensor,
    x: Tensor,
    gate: Tensor,
    conv_weight: Tensor,
    conv_bias: Tensor,
    proj_weight: Tensor,
    delta_weight: Tensor,
    delta_bias: Tensor,
    A: Tensor,
    D: Tensor,
    selects: str,
    axis: str,
    reverse: bool,
    implementation: str | None,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Gradients of the nine tensors, like them and contiguous."""
    p = PassInputs(
        x, gate, conv_weight, conv_bias, proj_weight, delta_weight, delta_bias, A, D, selects, axis, reverse
    )
    grads = kernels_for(x.device, implementation).pass_backward(grad, p)
    dx, dgate, dconv_weight, dconv_bias, dproj_weight, ddelta_weight, ddelta_bias, dA, dD = (
        g.to(tensor.dtype).contiguous() for g, tensor in zip(grads, p[:9], strict=True)
    )
    return dx, dgate, dconv_weight, dconv_bias, dproj_weight, ddelta_weight, ddelta_bias, dA, dD


@directional_pass_backward.register_fake
def _(grad: Tensor, *inputs: Any) -> tuple[Tensor, ...]:
    return tuple(torch.empty(tensor.shape, dtype=tensor.dtype, device=grad.device) for tensor in inputs[:9])


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.save_for_backward(*inputs[:9])
    ctx.settings = inputs[9:]


def _backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    grads = directional_pass_backward(grad, *ctx.saved_tensors, *ctx.settings)
    return (*grads, *(None,) * len(ctx.settings))


directional_pass.register_autograd(_backward, setup_context=_setup_context)
for device in ("cpu", "cuda"):
    directional_pass.register_autocast(device, torch.float32)
    directional_pass_backward.register_autocast(device, torch.float32)
