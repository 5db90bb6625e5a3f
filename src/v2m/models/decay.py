"""The decay rates of trained weights as geometric ones, and how far off these are.

Shapes: D channels, N state size.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from v2m.layers import Decay
from v2m.layers.scan_parameters import initial_log_rates

STEPS = dict(A_log="dt_proj.bias", A_2_log="dt_proj_2.bias", A_b_log="dt_proj_b.bias")
"""How the names of decay rates end, and of the biases of the step sizes that they go with."""
ALL = "all"
"""The name of the errors of all mixers together."""


@dataclass(frozen=True)
class RateErrors:
    """How far the geometric rates of a mixer are from the free ones that they replace.

    Attributes:
        mixer: The mixer's name in the model, or ``ALL``.
        median: Median relative error of a rate.
        largest: Largest relative error of a rate.
        one_cell: Largest error of a decay over one cell, at the step sizes for an input of zeros.
        any_distance: Largest error of a decay over the distance where it is worst.
    """

    mixer: str
    median: float
    largest: float
    one_cell: float
    any_distance: float


def make_geometric(state: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], list[RateErrors]]:
    """Weights of a model with free decay rates as those of its twin with geometric ones.

    Returns:
        The weights, and how far off their rates are: of every mixer, then of all together.
    """
    geometric = {name: fit_rates(value) if is_rate(name) else value for name, value in state.items()}
    found: dict[str, list[tuple[Tensor, Tensor]]] = {}
    for name in filter(is_rate, state):
        place, _, last = name.rpartition(".")
        # Scans that a mixer holds, by axis or for windows, are counted to it.
        mixer = f"{place.partition('.mixer')[0]}.mixer"
        errors = _errors(state[name], geometric[name], state[f"{place}.{STEPS[last]}"])
        found.setdefault(mixer, []).append(errors)
    found[ALL] = [errors for of_mixer in found.values() for errors in of_mixer]
    return geometric, [_summary(mixer, errors) for mixer, errors in found.items() if errors]


def fit_rates(A_log: Tensor) -> Tensor:
    """The geometric rates that are nearest to free ones, as logarithms: ``[D]`` of ``[D, N]``.

    Nearest in the mean square of the logarithms. What a state keeps of an input over any distance is off by
    at most 1/e times the error of the logarithm of its rate, whatever the rate is. So slow states and fast
    ones count alike.
    """
    # In the type of the weights, so that a new model's rates become exactly those of its twin.
    return (A_log - initial_log_rates(A_log.shape[1]).to(A_log)).double().mean(1).to(A_log)


def is_rate(name: str) -> bool:
    """Whether a parameter is of the decay rates of a mixer."""
    return name.rpartition(".")[2] in STEPS


def _errors(free: Tensor, geometric: Tensor, delta_bias: Tensor) -> tuple[Tensor, Tensor]:
    """Relative errors of the rates, and those of the decays over one cell, ``[D * N]`` each."""
    free, geometric, delta_bias = free.double(), geometric.double(), delta_bias.double()
    relative = (geometric.unsqueeze(1) + initial_log_rates(free.shape[1]).to(free) - free).expm1()
    lengths = F.softplus(delta_bias).unsqueeze(1) * free.exp()
    cell = (-lengths * (1 + relative)).exp() - (-lengths).exp()
    return relative.flatten(), cell.flatten()


def _summary(mixer: str, errors: list[tuple[Tensor, Tensor]]) -> RateErrors:
    relative, cell = map(torch.cat, zip(*errors, strict=True))
    # The largest |exp(-t) - exp(-t * (1 + r))| of all t from 0, for a relative error r above -1.
    distance = (-relative.log1p() / relative).exp() * relative / (1 + relative)
    distance = torch.where(relative == 0, 0.0, distance)
    sizes = relative.abs().median(), relative.abs().max(), cell.abs().max(), distance.abs().max()
    return RateErrors(mixer, *(size.item() for size in sizes))


def check_decay(state: Mapping[str, Any], model: nn.Module) -> None:
    """See that weights have the kind of decay rates that a model has, where it has any.

    Args:
        state: The weights.
        model: One of this package's.

    Raises:
        ValueError: they are of the other kind.
    """
    own: Decay | None = model.config.decay  # type: ignore[union-attr, assignment]
    dims = {value.ndim for name, value in state.items() if is_rate(name) and isinstance(value, Tensor)}
    found = Decay.GEOMETRIC if dims == {1} else Decay.FREE
    if own is None or not dims or found is own:
        return
    remedy = "; v2m convert --decay geometric fits such rates to them" if own is Decay.GEOMETRIC else ""
    raise ValueError(
        f"{type(model).__name__}: decay is {own.value!r}, but these weights are of {found.value!r}{remedy}"
    )
