"""Which implementation runs: the fastest for the device, unless another is asked for."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from importlib import import_module
from importlib.util import find_spec
from typing import Any, Literal, TypeAlias, get_args

import torch
from torch import Tensor

from v2m.ops.kernels.build import is_available, library

Implementation: TypeAlias = Literal["reference", "cpu", "triton", "pytorch"]
"""``reference``: the oracle, for any device and dtype. The others compute in float32: ``cpu`` in C++,
``triton`` on GPUs, ``pytorch`` where there is no compiler, or no Triton."""

_forced: Implementation | None = None


@contextmanager
def use_implementation(implementation: Implementation | None) -> Iterator[None]:
    """Run the operators called inside with one implementation, in whatever model; None for the fastest.

    Raises:
        ValueError: there is no such implementation.

    Example:
        >>> import v2m
        >>> with use_implementation("reference"):
        ...     y = v2m.create_model("v2m_nano")(torch.zeros(1, 3, 8, 8))
    """
    global _forced
    _check("use_implementation", implementation)
    before, _forced = _forced, implementation
    try:
        yield
    finally:
        _forced = before


def choose_implementation(operator: str, u: Tensor, implementation: str | None) -> str | None:
    """``"reference"``, or what to hand to the registered operator.

    float64 and the export to ONNX, which knows PyTorch's operators only, take the reference.

    Raises:
        ValueError: there is no such implementation, or it does not take the device or dtype of ``u``.
    """
    if implementation is None:
        implementation = _forced
    _check(operator, implementation)
    if implementation is None:
        is_plain = u.dtype == torch.float64 or torch.onnx.is_in_onnx_export()
        return "reference" if is_plain else None
    if implementation != "reference" and u.dtype == torch.float64:
        raise ValueError(
            f"{operator}: implementation {implementation!r} takes no float64, expected 'reference'"
        )
    if implementation == "cpu" and u.device.type != "cpu":
        raise ValueError(f"{operator}: implementation 'cpu' takes tensors on the CPU, got one on {u.device}")
    if implementation == "triton" and u.device.type == "cpu" and not os.environ.get("TRITON_INTERPRET"):
        raise ValueError(f"{operator}: implementation 'triton' takes tensors on a GPU, got one on {u.device}")
    return implementation


def kernels_for(device: torch.device, implementation: str | None) -> Any:
    """The module of ``v2m.ops.kernels`` with the kernels to run.

    Raises:
        KernelError: the CPU kernels are asked for and cannot be had.
        ImportError: Triton is asked for and is not installed.
    """
    if implementation is None:
        implementation = _fastest(device.type)
    elif implementation == "cpu":
        library()
    return import_module(f"v2m.ops.kernels.{implementation}")


def _fastest(device: str) -> str:
    if device == "cpu":
        return "cpu" if is_available() else "pytorch"
    return "triton" if device == "cuda" and _has_triton() else "pytorch"


@lru_cache
def _has_triton() -> bool:
    return find_spec("triton") is not None


def _check(caller: str, implementation: str | None) -> None:
    if implementation is not None and implementation not in get_args(Implementation):
        choices = ", ".join(map(repr, get_args(Implementation)))
        raise ValueError(f"{caller}: implementation is {implementation!r}, expected one of {choices}")
