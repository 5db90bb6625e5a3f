"""Operations of a model, counted as it runs."""

from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from v2m.ops.flops import FORMULAS, PER_UPDATE, Flops, Formula

CONVENTION = (
    "1e9 operations for one image; linear layers, convolutions and attention count a multiplication and its "
    f"addition once, selective scans {PER_UPDATE} per token, channel and state (issue 110 of "
    "state-spaces/mamba), the rest not at all"
)


def count_flops(model: nn.Module, input_size: tuple[int, ...]) -> Flops:
    """Count the operations of a model for one image, as ``CONVENTION`` says.

    Args:
        model: A model built on the meta device, where shapes are passed on and nothing is computed.
        input_size: Channels, height and width of the image, in pixels.

    Returns:
        The operations of the layers and those of the scans.
    """
    found: list[Flops] = []

    # PyTorch's counter has one sum for all. To keep scans apart, each formula notes its own and says 0.
    def collecting(formula: Formula) -> Any:
        def collect(*inputs: Any, **_: Any) -> int:
            found.append(formula(*inputs))
            return 0

        return collect

    # The mapping replaces what PyTorch would count for these operators.
    formulas = {operator: collecting(formula) for operator, formula in FORMULAS.items()}
    with FlopCounterMode(display=False, custom_mapping=formulas) as counter, torch.no_grad():
        model.eval()(torch.empty(1, *input_size, device="meta"))
    layers = counter.get_total_flops() // 2  # it takes a multiply-accumulate for two
    return Flops(layers + sum(of_one.layers for of_one in found), sum(of_one.scans for of_one in found))
