"""Products of numbers by channel ``[.., D]``, by state ``[.., N]``, and by both ``[.., D, N]``."""

from torch import Tensor


def outer(channels: Tensor, states: Tensor) -> Tensor:
    """``[.., D, N]``."""
    return channels.unsqueeze(-1) * states.unsqueeze(-2)


def over_states(both: Tensor, states: Tensor) -> Tensor:
    """Sums over the states ``[.., D]``."""
    return (both @ states.unsqueeze(-1)).squeeze(-1)


def over_channels(channels: Tensor, both: Tensor) -> Tensor:
    """Sums over the channels ``[.., N]``."""
    return (channels.unsqueeze(-2) @ both).squeeze(-2)
