"""Operations of a model, counted as it runs."""

from math import prod
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

PER_UPDATE = 9
CONVENTION = (
    "1e9 operations for one image; linear layers, convolutions and attention count a multiplication and its "
    f"addition once, selective scans {PER_UPDATE} per token, channel and state (issue 110 of "
    "state-spaces/mamba), the rest not at all"
)


class Flops(NamedTuple):
    """Operations of one forward pass.

    Attributes:
        layers: Multiply-accumulates of linear layers, convolutions and attention.
        scans: 9 per token, channel and state of every selective scan; one in two dimensions is two, for each
            of its sweeps.
    """

    layers: int
    scans: int

    @property
    def total(self) -> int:
        """Both together."""
        return self.layers + self.scans


def count_flops(model: nn.Module, input_size: tuple[int, ...]) -> Flops:
    """Count the operations of a model for one image.

    Args:
        model: A model built on the meta device, where shapes are passed on and nothing is computed.
        input_size: Channels, height and width of the image.
    """
    scans = 0

    # PyTorch's counter takes a multiply-accumulate for two, so these do; they are given shapes.
    def count_scan(*inputs: Any, **_: Any) -> int:
        nonlocal scans
        u, _delta, A, *_rest = inputs
        scans += PER_UPDATE * prod(u[:-1]) * prod(A)
        return 0

    def count_pass(*inputs: Any, **_: Any) -> int:
        x, _gate, conv, _conv_bias, proj, delta, _delta_bias, A, *_rest = inputs
        return count_scan(x, x, A) + 2 * prod(x[:-1]) * (prod(conv) + prod(proj) + prod(delta))

    def count_scan_2d(*inputs: Any, **_: Any) -> int:
        u, delta, _delta_col, A, *_rest, sweeps, _implementation = inputs
        for _kind_and_sweep in range(2 if sweeps is None else 2 * (1 + sweeps)):
            count_scan(u, delta, A)
        return 0

    formulas = {
        torch.ops.v2m.selective_scan: count_scan,
        torch.ops.v2m.directional_pass: count_pass,
        torch.ops.v2m.selective_scan_2d: count_scan_2d,
    }
    with FlopCounterMode(display=False, custom_mapping=formulas) as counter, torch.no_grad():
        model.eval()(torch.empty(1, *input_size, device="meta"))
    return Flops(counter.get_total_flops() // 2, scans)
