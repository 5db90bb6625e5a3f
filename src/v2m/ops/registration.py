"""Registration of an operator with PyTorch, as ``v2m::NAME`` and ``v2m::NAME_backward``.

Autograd, ``torch.compile`` and ``torch.export`` see one node of known shapes. The kernels are chosen when it
runs, so an exported program runs wherever this package does. Under autocast it takes float32. Nothing but the
arguments is kept for the backward, which computes again what it needs.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor

from v2m.ops.arguments import Argument, arguments_of, check
from v2m.ops.dispatch import choose_implementation, kernel_module
from v2m.ops.flops import Flops, count

Inputs = TypeVar("Inputs", bound=tuple[Any, ...])
"""The record of an operator's arguments; see ``v2m.ops.arguments``."""

OPERATORS: "dict[str, Operator[Any]]" = {}
"""By name."""


@dataclass(slots=True)
class Kernels(Generic[Inputs]):
    """One operator as one implementation computes it, in float32 and without autograd.

    Attributes:
        forward: From the arguments to the output.
        backward: From the gradient of the output and the arguments to the gradients of the tensors, each in
            the place of its tensor; None for what is left out.
    """

    forward: Callable[[Inputs], Tensor]
    backward: Callable[[Tensor, Inputs], Inputs]


class Operator(Generic[Inputs]):
    """An operator: all that PyTorch has to know follows from the record of its arguments.

    Args:
        name: Its name in ``torch.ops.v2m``, and in messages.
        inputs: The record.
        oracle: Computes the output from the record, in any floating point dtype, differentiably.
        kernels: What the functions in the modules of ``v2m.ops.kernels`` are called, before ``_forward`` and
            ``_backward``.
        flops: Operations, from a record with shapes in place of tensors.
        sums: Tensors ``[D]`` that are added to a map ``[B, H, W, D]``, each with the name of the map. Their
            gradient is the sum of the map's, so kernels need not compute it.
    """

    def __init__(
        self,
        name: str,
        inputs: type[Inputs],
        *,
        oracle: Callable[[Inputs], Tensor],
        kernels: str,
        flops: Callable[[Any], Flops],
        sums: Mapping[str, str] | None = None,
    ) -> None:
        self.name, self.inputs, self.oracle, self.kernels = name, inputs, oracle, kernels
        self._functions = (f"{kernels}_forward", f"{kernels}_backward")
        self.arguments = arguments_of(inputs)
        self._tensors = [argument for argument in self.arguments if argument.is_tensor]
        self._sums = dict(sums or {})
        # The tensors that the backward operator returns gradients of, and where they stand.
        self._returned = [i for i, tensor in enumerate(self._tensors) if tensor.name not in self._sums]
        self._register()
        forward, backward = getattr(torch.ops.v2m, name), getattr(torch.ops.v2m, f"{name}_backward")
        self._forward, self._backward = forward.default, backward.default
        count(forward, backward, lambda *values: flops(inputs(*values[:-1])))
        OPERATORS[name] = self

    def check(
        self,
        inputs: Inputs,
        more: Sequence[tuple[Argument, object]] = (),
        aliases: Mapping[str, str] | None = None,
    ) -> None:
        """Refuse wrong arguments, with some that are not in the record; see ``v2m.ops.arguments.check``."""
        given: Sequence[object] = inputs[: len(self.arguments)]
        if not more:
            return check(self.name, self.arguments, given, aliases)
        others, values = zip(*more, strict=True)
        check(self.name, (*self.arguments, *others), (*given, *values), aliases)

    def __call__(self, inputs: Inputs, implementation: str | None) -> Tensor:
        """The output, by the oracle or the kernels; see ``v2m.ops.dispatch.choose_implementation``."""
        chosen = choose_implementation(self.name, inputs[0], implementation)
        if chosen == "reference":
            return self.oracle(inputs)
        return self._forward(*inputs[: len(self.arguments)], chosen)

    def kernels_for(self, device: torch.device, implementation: str | None) -> Kernels[Inputs]:
        """The kernels to run: those that are asked for, or the fastest for the device.

        Raises:
            KernelError: the CPU kernels are asked for and cannot be had.
            ImportError: Triton is asked for and is not installed.
            ValueError: what is asked for has no kernels for this operator.
            RuntimeError: forward-mode derivatives are taken, which would be zero without a word.
        """
        module, (forward, backward) = kernel_module(device, implementation), self._functions
        if not hasattr(module, forward):
            if implementation is not None:
                raise ValueError(f"{self.name}: implementation {implementation!r} has no kernels for it")
            module = kernel_module(device, "pytorch")
        return Kernels(getattr(module, forward), getattr(module, backward))

    def _register(self) -> None:
        inputs, returned = self.inputs, self._returned
        exact = set(self._sums.values())  # not rounded before they are summed
        arguments = [f"{argument.type} {argument.name}" for argument in self.arguments]
        schema = ", ".join([*arguments, "str? implementation"])
        gradients = ", ".join(["Tensor"] * len(returned))

        def dtype_of(i: int, tensor: Tensor) -> torch.dtype:
            return torch.float32 if self._tensors[i].name in exact else tensor.dtype

        def forward(*values: Any) -> Tensor:
            *given, implementation = values
            kernels = self.kernels_for(given[0].device, implementation)
            return kernels.forward(inputs(*given)).contiguous()

        def backward(grad: Tensor, *values: Any) -> tuple[Tensor, ...]:
            *given, implementation = values
            grads = self.kernels_for(grad.device, implementation).backward(grad, inputs(*given))
            # A schema has no list of optional tensors: what is left out has a gradient of no elements.
            return tuple(
                grad.new_empty(0, dtype=torch.float32)
                if given[i] is None
                else grads[i].to(dtype_of(i, given[i])).contiguous()
                for i in returned
            )

        def fake_forward(first: Tensor, *_values: Any) -> Tensor:
            return torch.empty(first.shape, dtype=first.dtype, device=first.device)

        def fake_backward(grad: Tensor, *values: Any) -> tuple[Tensor, ...]:
            return tuple(
                torch.empty(0, dtype=torch.float32, device=grad.device)
                if values[i] is None
                else torch.empty(values[i].shape, dtype=dtype_of(i, values[i]), device=grad.device)
                for i in returned
            )

        operator = torch.library.custom_op(
            f"v2m::{self.name}", forward, mutates_args=(), schema=f"({schema}) -> Tensor"
        )
        operator_backward = torch.library.custom_op(
            f"v2m::{self.name}_backward",
            backward,
            mutates_args=(),
            schema=f"(Tensor grad, {schema}) -> ({gradients})",
        )
        operator.register_fake(fake_forward)
        operator_backward.register_fake(fake_backward)
        operator.register_autograd(self._gradients, setup_context=self._keep)
        for device in ("cpu", "cuda"):
            operator.register_autocast(device, torch.float32)
            operator_backward.register_autocast(device, torch.float32)

    def _keep(self, ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.save_for_backward(*inputs[: len(self._tensors)])
        ctx.settings = inputs[len(self._tensors) :]

    def _gradients(self, ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        tensors, settings = ctx.saved_tensors, ctx.settings
        grads: list[Tensor | None]
        if torch.is_grad_enabled():  # create_graph=True
            grads = self._differentiable_gradients(tensors, settings[:-1], grad)
        else:
            by_name = {
                self._tensors[i].name: gradient
                for i, gradient in zip(self._returned, self._backward(grad, *tensors, *settings), strict=True)
            }
            for i, argument in enumerate(self._tensors):
                if argument.name in self._sums and ctx.needs_input_grad[i]:
                    by_name[argument.name] = by_name[self._sums[argument.name]].sum((0, 1, 2))
            grads = [
                None if x is None or argument.name not in by_name else by_name[argument.name].to(x.dtype)
                for argument, x in zip(self._tensors, tensors, strict=True)
            ]
        return (*grads, *(None,) * len(settings))

    def _differentiable_gradients(
        self, tensors: Sequence[Tensor | None], settings: Sequence[Any], grad: Tensor
    ) -> list[Tensor | None]:
        """Gradients by the oracle, which can be differentiated again as those of the kernels cannot."""
        # Gradients stop at these views: one tensor may be computed from another.
        views = [None if x is None else x.view_as(x) for x in tensors]
        wanted = [x for x in views if x is not None and x.requires_grad]
        record: Any = self.inputs
        y = self.oracle(record(*views, *settings))
        grads = iter(torch.autograd.grad(y, wanted, grad, create_graph=True, allow_unused=True))
        return [next(grads) if x is not None and x.requires_grad else None for x in views]
