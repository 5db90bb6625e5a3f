"""What every operator asks of its arguments, whatever their shapes."""

from collections.abc import Mapping

import torch
from torch import Tensor

FLOATING = (torch.float32, torch.float64, torch.bfloat16, torch.float16)


def check_tensors(
    operator: str, tensors: Mapping[str, Tensor | None], optional: tuple[str, ...] = ()
) -> None:
    """Refuse what kernels cannot read; None only where it is ``optional``. The first is the map.

    Raises:
        TypeError: an argument is no tensor, or one without dense floating point numbers.
        ValueError: it is on another device than the map.
    """
    (first, like), *_ = tensors.items()
    for name, value in tensors.items():
        if value is None and name in optional:
            continue
        if not isinstance(value, Tensor):
            raise TypeError(f"{operator}: {name} is {described(value)}, expected a tensor")
        if value.is_nested or value.layout != torch.strided:
            layout = "nested" if value.is_nested else f"of layout {value.layout}"
            raise TypeError(f"{operator}: {name} is {layout}, expected a dense tensor")
        names = () if torch.compiler.is_compiling() else getattr(value, "names", ())  # newer PyTorch has none
        if any(names):
            raise TypeError(f"{operator}: {name} has named dimensions {names}, expected none")
        if name == first and value.dtype not in FLOATING:
            raise TypeError(f"{operator}: {name} has dtype {value.dtype}, expected one of {FLOATING}")
        if not value.is_floating_point():
            raise TypeError(f"{operator}: {name} has dtype {value.dtype}, expected floating point")
    assert like is not None
    for name, value in tensors.items():
        if value is not None and value.device != like.device:
            raise ValueError(f"{operator}: {name} is on {value.device}, expected {like.device} as {first}")


def check_flags(operator: str, **flags: object) -> None:
    """Refuse flags that are neither True nor False.

    Raises:
        TypeError: one is not; the message names it.
    """
    for name, value in flags.items():
        if not isinstance(value, bool):
            raise TypeError(f"{operator}: {name} is {described(value)}, expected True or False")


def described(value: object) -> str:
    """A value for a message of one line: its type where it is long."""
    text = repr(value)
    return text if len(text) <= 60 and text.isprintable() else f"of type {type(value).__name__}"
