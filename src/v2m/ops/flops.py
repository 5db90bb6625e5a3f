"""Operations of the operators, from shapes, for ``v2m list --flops`` and for PyTorch's counter alike."""

import logging
from collections.abc import Callable
from typing import Any, NamedTuple

_log = logging.getLogger("torch.utils.flop_counter")
_log.disabled = True  # on import it says if there is no Triton
from torch.utils.flop_counter import register_flop_formula  # noqa: E402

_log.disabled = False

PER_UPDATE = 9


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


Formula = Callable[..., Flops]
"""From the inputs of an operator, with shapes in place of tensors."""

FORMULAS: dict[Any, Formula] = {}
"""By operator, forward."""


def count(forward: Any, backward: Any, formula: Formula) -> None:
    """Have the operations of an operator counted, by ``torch.utils.flop_counter`` too.

    PyTorch counts a multiply-accumulate as two operations. The backward counts twice what the forward does,
    as that of a matrix product; what it computes again is left out.

    Args:
        forward: The operator, in ``torch.ops``.
        backward: Its backward, which takes a gradient before the same inputs.
        formula: What there is to count.
    """

    def forward_flops(*inputs: Any, **_: Any) -> int:
        found = formula(*inputs)
        return 2 * found.layers + found.scans

    def backward_flops(_grad: Any, *inputs: Any, **_: Any) -> int:
        return 2 * forward_flops(*inputs)

    register_flop_formula(forward)(forward_flops)
    register_flop_formula(backward)(backward_flops)
    FORMULAS[forward] = formula
