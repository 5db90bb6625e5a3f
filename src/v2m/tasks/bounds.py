"""What a file of weights allows: no model is built that is larger than the weights that are to fill it."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod
from pathlib import Path
from threading import get_ident
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor, nn
from torch.nn.modules.module import (
    register_module_buffer_registration_hook,
    register_module_module_registration_hook,
    register_module_parameter_registration_hook,
)

from v2m.data.files import open_file

HEADER_BYTES = 2**24
MOST_TENSORS = 2**15
TIMES, MORE_TENSORS, MORE_NUMBERS = 4, 2**10, 2**24
"""A model may have four times the tensors and numbers of the file, and some more.

A head for other classes is built and dropped, a backbone is built twice, and some buffers are not saved.
"""
MODULES_PER_TENSOR = 32
DTYPES = {"F64": True, "F32": True, "F16": True, "BF16": True} | dict.fromkeys(
    ("I64", "I32", "I16", "I8", "U8", "BOOL"), False
)
"""Types of saved tensors, and whether they are floating-point."""


@dataclass(frozen=True)
class Header:
    """What a file of weights holds, by its header.

    Attributes:
        is_float: Whether it is floating-point, for every tensor by name.
        numbers: Numbers in all of them.
    """

    is_float: dict[str, bool]
    numbers: int

    @contextmanager
    def limit(self) -> Iterator[None]:
        """Stop the building of a model, in this thread, as soon as it is too large for the file.

        Raises:
            ValueError: it is.
        """
        owner, count = get_ident(), dict(tensors=0, numbers=0, layers=0)
        tensors = TIMES * len(self.is_float) + MORE_TENSORS
        most = dict(
            tensors=tensors, numbers=TIMES * self.numbers + MORE_NUMBERS, layers=MODULES_PER_TENSOR * tensors
        )

        def add(**more: int) -> None:
            for key, value in more.items():
                count[key] += value
                if count[key] > most[key]:
                    raise ValueError(
                        f"the settings ask for a model of more than {most[key]:,} {key}, for which the file "
                        f"of weights is too small: {len(self.is_float):,} tensors, {self.numbers:,} numbers"
                    )

        def on_tensor(module: nn.Module, name: str, tensor: Tensor | None) -> None:
            if tensor is not None and get_ident() == owner:
                add(tensors=1, numbers=tensor.numel())

        def on_layer(module: nn.Module, name: str, layer: nn.Module | None) -> None:
            if get_ident() == owner:
                add(layers=1)

        handles: list[Any] = [
            register_module_parameter_registration_hook(on_tensor),
            register_module_buffer_registration_hook(on_tensor),
            register_module_module_registration_hook(on_layer),
        ]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def check_types(self, state: dict[str, Tensor]) -> None:
        """See that numbers are saved where numbers are needed, and whole ones likewise.

        Raises:
            ValueError: a tensor is of the other kind.
        """
        for name, value in state.items():
            if self.is_float.get(name, value.is_floating_point()) != value.is_floating_point():
                raise ValueError(f"{name} is of another type than {str(value.dtype).removeprefix('torch.')}")


def read_header(path: Path) -> Header:
    """Read the header of a safetensors file; the numbers are left where they are.

    Raises:
        DataError: it is no regular file.
        ValueError: the header is too large, or of tensors that no model here has.
        SafetensorError: it is no safetensors file, or does not fit its header.
        OSError: it cannot be read.
    """
    with open_file(path) as file:
        size = int.from_bytes(file.read(8), "little")
    if size > HEADER_BYTES:
        raise ValueError(f"its header has {size:,} bytes, expected at most {HEADER_BYTES:,}")
    is_float, numbers = {}, 0
    with safe_open(path, "pt") as tensors:
        names = tensors.keys()
        if len(names) > MOST_TENSORS:
            raise ValueError(f"it has {len(names):,} tensors, expected at most {MOST_TENSORS:,}")
        for name in names:
            part = tensors.get_slice(name)
            dtype = part.get_dtype()
            if dtype not in DTYPES:
                raise ValueError(f"{name} is of type {dtype}, expected one of {', '.join(DTYPES)}")
            is_float[name] = DTYPES[dtype]
            numbers += prod(part.get_shape())
    return Header(is_float, numbers)


def check_finite(state: dict[str, Tensor]) -> None:
    """See that weights are numbers.

    Raises:
        ValueError: some are infinite or NaN.
    """
    for name, value in state.items():
        if value.is_floating_point() and not torch.isfinite(value).all():
            raise ValueError(f"{name} has values that are infinite or NaN, take other weights")
