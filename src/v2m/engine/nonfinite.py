"""Where a number that is not finite came from: a step is repeated with every module watched."""

from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel


def find_nonfinite(step: Callable[[nn.Module], Tensor], model: nn.Module) -> str:
    """Repeat a step of training and name the first thing that is not finite.

    These are looked at, in this order:

    1. parameters and buffers;
    2. the images;
    3. the modules as they run: the innermost one whose input was finite and whose output is not;
    4. the loss;
    5. the gradients, from the loss backwards.

    What runs is the model inside ``DistributedDataParallel`` and ``torch.compile``. So one process can look
    by itself; with FSDP2 all processes have to. Gradients, buffers and the states of PyTorch's random
    generators stay as they were. Activation checkpointing has to use ``use_reentrant=False``, timm's default.

    Args:
        step: Computes the loss by a model, as it goes into the backward pass, with the autocast of training.
            For the same dropout, it has to seed PyTorch first. Images are mixed before.
        model: The model, wrapped or not.

    Returns:
        A phrase: ``the parameter ...``, ``the buffer ...``, ``the input images``, ``the output of ...``,
        ``the loss``, ``the gradient of ...``, ``the backward pass of ...`` or ``nowhere when repeated``.
    """
    model = _unwrapped(model)
    if found := _nonfinite_state(model):
        return found

    # Whatever a forward pass changes is kept, and no compiled code runs: it would leave out the hooks.
    buffers = [(buffer, buffer.clone()) for buffer in model.buffers()]
    gpus = {parameter.device for parameter in model.parameters() if parameter.device.type in ("cuda", "xpu")}
    search = _Search()
    with (
        torch.compiler.set_stance("force_eager"),
        torch.random.fork_rng(gpus, device_type=next((gpu.type for gpu in gpus), "cuda")),
        torch.enable_grad(),
        search.watch(model),
    ):
        try:
            loss = step(model)
            search.is_forward = False
            if not _is_finite(loss):
                return search.forward or "the loss"
            # Unlike backward(), this changes no .grad, and runs no hooks that wait for other processes.
            torch.autograd.grad(loss, [p for p in model.parameters() if p.requires_grad], allow_unused=True)
        finally:
            with torch.no_grad():
                for buffer, value in buffers:
                    buffer.copy_(value)

    # An infinity on the way may do no harm. So the forward pass is to blame only if a gradient went bad.
    if search.backward:
        return search.forward or search.backward
    return "nowhere when repeated"


class _Search:
    """Hooks on modules, parameters and the tensors between modules, and what they find first.

    Every module gets aliases of its inputs and gives away aliases of its outputs. The gradient of a tensor is
    the sum over all modules that use it; the gradient of an alias is the part of one module.

    Attributes:
        forward: What is not finite first in the forward pass; empty if nothing is.
        backward: Likewise in the backward pass.
        is_forward: Whether the forward pass runs. In the backward pass, checkpointed modules run again.
        calls: The modules that run, outermost first, and whether the input of each is finite.
    """

    def __init__(self) -> None:
        self.forward = self.backward = ""
        self.is_forward = True
        self.calls: list[tuple[str, bool]] = []

    def watch(self, model: nn.Module) -> ExitStack:
        """Put the hooks on; leaving the context takes them off."""
        hooks = ExitStack()
        for name, module in model.named_modules():
            enter, leave = self._enter_and_leave(f"{_clean(name) or 'the model'} ({type(module).__name__})")
            hooks.callback(module.register_forward_pre_hook(enter, with_kwargs=True).remove)
            hooks.callback(module.register_forward_hook(leave).remove)
        for name, parameter in model.named_parameters():
            if parameter.requires_grad:
                see = self._gradient_hook(f"the gradient of {_clean(name)}")
                hooks.callback(parameter.register_hook(see).remove)
        return hooks

    def _enter_and_leave(self, module_name: str) -> tuple[Callable[..., Any], Callable[..., Any]]:
        def enter(module: nn.Module, args: Any, kwargs: Any) -> Any:
            if not self.is_forward:
                return None
            is_finite = _is_finite((args, kwargs))
            if not is_finite and not self.calls and not self.forward:
                self.forward = "the input images"
            self.calls.append((module_name, is_finite))
            return self._aliases((args, kwargs), f"the backward pass of {module_name}")

        def leave(module: nn.Module, args: Any, output: Any) -> Any:
            if not self.is_forward:
                return None
            # Inner modules leave first, so the innermost culprit is the first find.
            _, was_finite = self.calls.pop()
            if was_finite and not self.forward and not _is_finite(output):
                self.forward = f"the output of {module_name}"
            user = f"the backward pass of {self.calls[-1][0]}" if self.calls else "the gradient of the loss"
            return self._aliases(output, user)

        return enter, leave

    def _aliases(self, value: Any, user: str) -> Any:
        """The same value with tensors whose gradients are watched: ``user`` makes these gradients."""
        made: dict[int, Tensor] = {}  # a tensor that is there twice gets one alias

        def alias(tensor: Tensor) -> Tensor:
            if not (tensor.requires_grad and torch.is_grad_enabled()):
                return tensor
            if id(tensor) not in made:
                made[id(tensor)] = tensor.view_as(tensor)
                made[id(tensor)].register_hook(self._gradient_hook(user))
            return made[id(tensor)]

        return _map_tensors(alias, value)

    def _gradient_hook(self, culprit: str) -> Callable[[Tensor], None]:
        def see(gradient: Tensor) -> None:
            if not self.backward and not _is_finite(gradient):
                self.backward = culprit

        return see


def _unwrapped(model: nn.Module) -> nn.Module:
    while True:
        if isinstance(model, DistributedDataParallel):
            model = model.module
        elif isinstance(inner := getattr(model, "_orig_mod", None), nn.Module):
            model = inner
        else:
            return model


def _clean(name: str) -> str:
    """A name without the parts that torch.compile adds."""
    return ".".join(part for part in name.split(".") if part != "_orig_mod")


def _nonfinite_state(model: nn.Module) -> str:
    """The first parameter or buffer that is not finite, in the order of the modules, in words.

    Infinities in buffers are fine: masks have them.
    """
    for prefix, module in model.named_modules():
        for name, parameter in module.named_parameters(prefix, recurse=False):
            if not _is_finite(parameter):
                return f"the parameter {_clean(name)}"
        for name, buffer in module.named_buffers(prefix, recurse=False):
            if buffer.isnan().any():
                return f"the buffer {_clean(name)}"
    return ""


def _map_tensors(function: Callable[[Tensor], Tensor], value: Any) -> Any:
    """Apply the function to every tensor in tuples, lists and plain dictionaries."""
    if isinstance(value, Tensor):
        return function(value)
    if type(value) is dict:  # others may have attributes too
        return {key: _map_tensors(function, item) for key, item in value.items()}
    if isinstance(value, tuple | list):
        items = [_map_tensors(function, item) for item in value]
        return value._make(items) if hasattr(value, "_make") else type(value)(items)
    return value


def _is_finite(value: Any) -> bool:
    """Whether all numbers are finite, in tensors and containers of them."""
    if isinstance(value, Tensor):
        return bool(torch.isfinite(value.detach()).all())
    if isinstance(value, dict):
        return all(map(_is_finite, value.values()))
    return not isinstance(value, tuple | list) or all(map(_is_finite, value))
