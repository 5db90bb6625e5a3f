"""Which implementation runs: the fastest for the device, unless another is asked for."""

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from functools import lru_cache
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType
from typing import Literal, TypeAlias, get_args

import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.torch_version import TorchVersion

from v2m.ops.arguments import described
from v2m.ops.kernels.build import is_available, library

Implementation: TypeAlias = Literal["reference", "cpu", "triton", "pytorch"]
"""``reference``: the oracle, for any device and dtype. The others compute in float32: ``cpu`` in C++,
``triton`` on GPUs, ``pytorch`` where there is no compiler, or no Triton."""

_forced: ContextVar[Implementation | None] = ContextVar("v2m_implementation", default=None)

# Older compilers read no context variables; they read the last choice of any thread.
_TRACES_CONTEXTS = TorchVersion(torch.__version__) >= "2.14"
_forced_anywhere: Implementation | None = None


@contextmanager
def use_implementation(implementation: Implementation | None) -> Iterator[None]:
    """Run the operators called inside with one implementation, in whatever model; None for the fastest.

    Other threads and asynchronous tasks are not concerned. Models that recompute their blocks in the backward
    pass (``set_grad_checkpointing``) recompute them as they were computed, wherever that happens.

    Raises:
        ValueError: there is no such implementation.

    Example:
        >>> import v2m
        >>> with use_implementation("reference"):
        ...     y = v2m.create_model("v2m_nano")(torch.zeros(1, 3, 8, 8))
    """
    global _forced_anywhere
    _check("use_implementation", implementation)
    token, before = _forced.set(implementation), _forced_anywhere
    _forced_anywhere = implementation
    try:
        yield
    finally:
        _forced.reset(token)
        _forced_anywhere = before


def as_now() -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
    """Contexts for a computation and its recomputation, as ``torch.utils.checkpoint`` wants them."""
    return nullcontext(), use_implementation(_forced_now())


def choose_implementation(operator: str, u: Tensor, implementation: str | None) -> str | None:
    """``"reference"``, or what to hand to the registered operator.

    float64, the export to ONNX, which knows PyTorch's operators only, and everything that transforms
    functions (``torch.func``, forward-mode derivatives) take the reference.

    Raises:
        ValueError: there is no such implementation, it does not take the device or dtype of ``u``, or it
            cannot be transformed.
    """
    if implementation is None:
        implementation = _forced_now()
    _check(operator, implementation)
    if implementation is None:
        is_plain = u.dtype == torch.float64 or torch.onnx.is_in_onnx_export() or _is_transformed()
        return "reference" if is_plain else None
    if implementation == "reference":
        return implementation
    if u.dtype == torch.float64:
        raise ValueError(
            f"{operator}: implementation {implementation!r} takes no float64, expected 'reference'"
        )
    if _is_transformed():
        raise ValueError(
            f"{operator}: implementation {implementation!r} has no transforms of torch.func and no "
            "forward-mode derivatives, expected 'reference' or None"
        )
    if implementation == "cpu" and u.device.type != "cpu":
        raise ValueError(f"{operator}: implementation 'cpu' takes tensors on the CPU, got one on {u.device}")
    if implementation == "triton" and u.device.type == "cpu" and not os.environ.get("TRITON_INTERPRET"):
        raise ValueError(f"{operator}: implementation 'triton' takes tensors on a GPU, got one on {u.device}")
    return implementation


def kernel_module(device: torch.device, implementation: str | None) -> ModuleType:
    """The module of ``v2m.ops.kernels`` that is asked for, or that of the fastest kernels for the device.

    Raises:
        KernelError: the CPU kernels are asked for and cannot be had.
        ImportError: Triton is asked for and is not installed.
        RuntimeError: forward-mode derivatives are taken, which would be zero without a word.
    """
    if forward_ad._current_level >= 0:  # only a graph that was captured before gets here
        raise RuntimeError(
            "v2m: a captured graph has no forward-mode derivatives, take them of the model itself, or "
            "capture it within v2m.ops.use_implementation('reference')"
        )
    if implementation is None:
        implementation = fastest(device)
    elif implementation == "cpu":
        library()
    return import_module(f"v2m.ops.kernels.{implementation}")


def fastest(device: torch.device) -> Implementation:
    """The implementation that runs where none is asked for."""
    if device.type == "cpu":
        return "cpu" if is_available() else "pytorch"
    return "triton" if device.type == "cuda" and _has_triton() else "pytorch"


def _forced_now() -> Implementation | None:
    if torch.compiler.is_compiling() and not _TRACES_CONTEXTS:
        return _forced_anywhere
    return _forced.get()


def _is_transformed() -> bool:
    """Whether a transform of ``torch.func`` or a level of dual numbers is active."""
    return torch._C._are_functorch_transforms_active() or forward_ad._current_level >= 0


@lru_cache
def _has_triton() -> bool:
    return find_spec("triton") is not None


def _check(caller: str, implementation: str | None) -> None:
    if implementation is None:
        return
    if not isinstance(implementation, str) or implementation not in get_args(Implementation):
        choices = ", ".join(map(repr, get_args(Implementation)))
        raise ValueError(
            f"{caller}: implementation is {described(implementation)}, expected one of {choices}"
        )
