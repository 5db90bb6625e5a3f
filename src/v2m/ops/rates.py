"""Rates of decay: one for every state, or one for every channel, of which states have the multiples."""

import torch
from torch import Tensor


def rates_of_states(A: Tensor, states: int) -> Tensor:
    """The rates ``[D, N]``: A itself, or ``(n + 1) * A`` for n from 0 if it is ``[D]``."""
    return A if A.dim() == 2 else A.unsqueeze(-1) * multiples(A, states)


def gradient_of_rates(grad: Tensor, A: Tensor) -> Tensor:
    """The gradient of A, given that of its ``rates_of_states``."""
    return grad if A.dim() == 2 else grad @ multiples(grad, grad.shape[-1])


def multiples(A: Tensor, states: int) -> Tensor:
    """1 to N, of the dtype of A."""
    return torch.arange(1, states + 1, dtype=A.dtype, device=A.device)
