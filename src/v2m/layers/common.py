"""What several mixers do before and around their mixing."""

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import is_traceable_wrapper_subclass

from v2m.ops.arguments import described


def is_size(value: object, smallest: int = 1) -> bool:
    """Whether a value is an integer (not a bool) of at least ``smallest`` that PyTorch takes as a size."""
    return isinstance(value, int) and not isinstance(value, bool) and smallest <= value < 2**31


def check_sizes(owner: str, **sizes: object) -> None:
    """Refuse arguments that are no positive integers.

    Raises:
        ValueError: one is not; the message names it.
    """
    for name, value in sizes.items():
        if not is_size(value):
            raise ValueError(f"{owner}: {name} is {value!r}, expected a positive integer")


def check_map(owner: str, x: Tensor, channels: int) -> None:
    """Refuse inputs that are no maps ``[B, H, W, channels]``.

    Raises:
        TypeError: it is no tensor.
        ValueError: the shape is another.
    """
    if not isinstance(x, Tensor):
        raise TypeError(f"{owner}: input is {described(x)}, expected a tensor")
    if x.ndim != 4 or x.shape[-1] != channels:
        raise ValueError(f"{owner}: input has shape {list(x.shape)}, expected [B, H, W, {channels}]")


def autocast_disabled(device: torch.device) -> AbstractContextManager[object]:
    """A context in which operators keep the dtypes of their arguments."""
    if device.type == "meta" or not torch.is_autocast_enabled(device.type):  # there is no autocast of "meta"
        return nullcontext()
    return torch.autocast(device.type, enabled=False)


def is_plain(*layers: nn.Module) -> bool:
    """Whether reading the weights of linear layers and convolutions is as good as calling the layers.

    It is not where hooks, adapters, parametrisations, quantisation, offloading or sharding come between.
    """
    return all(
        type(layer) in (nn.Linear, nn.Conv1d)
        and not (layer._forward_hooks or layer._forward_pre_hooks)
        and not (layer._backward_hooks or layer._backward_pre_hooks)
        and "forward" not in vars(layer)
        and (type(layer) is nn.Linear or (layer.stride, layer.padding, layer.dilation) == ((1,), (0,), (1,)))
        and not is_traceable_wrapper_subclass(layer.weight)
        for layer in layers
    )


def cast_for(layer: nn.Module, x: Tensor) -> Tensor:
    """``x`` in the data type of a layer's weight; as it is where a quantised layer has none to tell."""
    weight = getattr(layer, "weight", None)
    return x.to(weight.dtype) if isinstance(weight, Tensor) and weight.is_floating_point() else x
