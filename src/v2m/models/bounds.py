"""What a file of weights allows: no model is built that is larger than the weights that are to fill it."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from threading import get_ident
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import (
    register_module_buffer_registration_hook,
    register_module_module_registration_hook,
    register_module_parameter_registration_hook,
)

TIMES, MORE_TENSORS, MORE_NUMBERS = 4, 2**10, 2**24
"""A model may have four times the tensors and numbers of the file, and some more.

A head for other classes is built and dropped, a backbone is built twice, and some buffers are not saved.
"""
MODULES_PER_TENSOR = 32


@dataclass(frozen=True)
class Contents:
    """What a file of weights holds.

    Attributes:
        is_float: Whether it is floating-point, for every tensor by name.
        numbers: Numbers in all of them.
    """

    is_float: dict[str, bool]
    numbers: int

    @classmethod
    def of(cls, state: dict[str, Tensor]) -> "Contents":
        """What a state dict holds; memory that tensors share counts once."""
        # By storage: an expanded view looks large and holds one number.
        storages = {t.untyped_storage().data_ptr(): t for t in state.values()}
        numbers = sum(t.untyped_storage().nbytes() // t.element_size() for t in storages.values())
        return cls({name: value.is_floating_point() for name, value in state.items()}, numbers)

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

        # PyTorch's hooks are those of the process; other threads may build models meanwhile.
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
        """See that floating-point tensors of the file meet floating-point ones of the model, and no others.

        Args:
            state: The state dict of the model that the file is to fill.

        Raises:
            ValueError: one of the two is floating-point and the other is not.
        """
        for name, value in state.items():
            if self.is_float.get(name, value.is_floating_point()) != value.is_floating_point():
                raise ValueError(f"{name} is of another type than {str(value.dtype).removeprefix('torch.')}")


def check_finite(state: dict[str, Tensor]) -> None:
    """See that weights are numbers.

    Raises:
        ValueError: some are infinite or NaN.
    """
    for name, value in state.items():
        if value.is_floating_point() and not torch.isfinite(value).all():
            raise ValueError(f"{name} has values that are infinite or NaN, take other weights")
