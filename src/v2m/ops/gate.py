"""A gate, given in one of two ways: ``z`` before its activation, or ``gate`` as the factor that it is."""

import torch
import torch.nn.functional as F
from torch import Tensor


def check_gate(operator: str, gate: Tensor | None, z: Tensor | None, is_required: bool = False) -> None:
    """Refuse both at once, and none where there has to be one.

    Raises:
        TypeError: it is so; the message says which to use.
    """
    if gate is not None and z is not None:
        found = "given"
    elif is_required and gate is None and z is None:
        found = "None"
    else:
        return
    raise TypeError(
        f"{operator}: gate and z are both {found}, "
        "expected z, to which silu is applied, or gate, a factor taken as it is"
    )


def activated(z: Tensor) -> Tensor:
    """``silu(z)``, in float32 at least."""
    return F.silu(z if z.dtype == torch.float64 else z.float())
