"""What several mixers do before and around their mixing."""

import math
from contextlib import AbstractContextManager, nullcontext
from typing import Literal

import torch
from torch import Tensor


def check_sizes(owner: str, **sizes: object) -> None:
    """Refuse arguments that are no positive integers.

    Raises:
        ValueError: one is not; the message names it.
    """
    for name, value in sizes.items():
        if not isinstance(value, int) or value < 1:
            raise ValueError(f"{owner}: {name} is {value!r}, expected a positive integer")


def check_map(owner: str, x: Tensor, channels: int) -> None:
    """Refuse inputs that are no maps ``[B, H, W, channels]``.

    Raises:
        ValueError: the shape is another.
    """
    if x.ndim != 4 or x.shape[-1] != channels:
        raise ValueError(f"{owner}: input has shape {list(x.shape)}, expected [B, H, W, {channels}]")


def autocast_disabled(device: torch.device) -> AbstractContextManager[object]:
    """A context in which operators keep the dtypes of their arguments."""
    if device.type == "meta" or not torch.is_autocast_enabled(device.type):  # there is no autocast of "meta"
        return nullcontext()
    return torch.autocast(device.type, enabled=False)


def resolve_rank(dt_rank: int | Literal["auto"], dim: int) -> int:
    """The rank of a step size projection: ``ceil(dim / 16)`` for ``"auto"``."""
    return math.ceil(dim / 16) if dt_rank == "auto" else dt_rank
