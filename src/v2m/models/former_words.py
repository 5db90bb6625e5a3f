"""Model arguments in the words of before, which saved models and timm's callers may have, in today's words.

``mixer`` was ``v2m``, ``raster`` or ``light``, and three arguments told how ``v2m`` mixes:

- ``recurrence="exact"`` is ``mixer="exact"``, and ``recurrence="iterative", iterations=k`` that with
  ``sweeps=k``;
- ``conv2d=True`` is ``mixer="conv"``. In the hierarchical family, ``v2m`` was what ``conv`` is.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from v2m.models.variants import HIERARCHICAL_ARGUMENTS, MODELS, PLAIN_ARGUMENTS

FORMER_WORDS = dict(
    recurrence="mixer='exact', with sweeps=k where it was iterative",
    iterations="sweeps, of mixer='exact'",
    conv2d="mixer='conv'",
)
"""Arguments of before, and what stands for them."""

FORMER_DEFAULTS = dict(directions="corners", single_gate=False, window=None)
"""Settings of ``v2m`` that ``raster`` and ``light`` were given too, as long as they asked for nothing."""

OF_CONV = ".mixer.scans.0.D_2"
"""How the name of a parameter ends that the mixer ``conv`` alone has."""


def todays_words(model: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments of a model in today's words.

    What cannot have been right before stays as it is, and is refused where the model is built. So does the
    mixer ``v2m`` in the hierarchical family where nothing shows that it is meant as before: see
    ``needs_weights``.

    Args:
        model: The model's name, with or without timm's tag; arguments of other models are not touched.
        arguments: The arguments, which may be mixed with today's where a caller overrides saved ones.
    """
    given, model = dict(arguments), _without_tag(model)
    if model not in MODELS:
        return given
    # What no argument said was light in the light models, and v2m in all others.
    is_light = HIERARCHICAL_ARGUMENTS.get(model, {}).get("mixer") == "light"
    default = "light" if is_light else "v2m"
    mixer = given.get("mixer", default)
    if mixer in ("raster", "light"):
        for name, value in FORMER_DEFAULTS.items():
            if name in given and given[name] == value:
                del given[name]
    if not FORMER_WORDS.keys() & given.keys():
        return given
    recurrence = given.pop("recurrence", "separable")
    iterations, has_conv2d = given.pop("iterations", 2), given.pop("conv2d", False)
    is_coupled = recurrence in ("exact", "iterative")
    is_known = is_coupled or recurrence == "separable"
    if not is_known or (mixer in ("raster", "light") and (is_coupled or has_conv2d)):
        return dict(arguments)
    if mixer == "v2m" and is_coupled:
        given["mixer"] = mixer = "exact"
        if recurrence == "iterative":
            given.setdefault("sweeps", iterations)
    elif mixer == "v2m" and (has_conv2d or ("mixer" in given and model in HIERARCHICAL_ARGUMENTS)):
        given["mixer"] = mixer = "conv"
    # Plain models took two settings beside these mixers, which had no effect.
    if model in PLAIN_ARGUMENTS and mixer in ("conv", "exact"):
        given.pop("d_conv", None)
    if model in PLAIN_ARGUMENTS and mixer == "exact":
        given.pop("single_gate", None)
    return given


def needs_weights(model: str, arguments: Mapping[str, Any]) -> bool:
    """Whether only the weights tell what a saved model's mixer is: ``v2m`` in stages has two meanings."""
    return _without_tag(model) in HIERARCHICAL_ARGUMENTS and arguments.get("mixer") == "v2m"


def are_of_conv(weights: Iterable[str]) -> bool:
    """Whether the names of weights are those of a model with the mixer ``conv``."""
    return any(name.endswith(OF_CONV) for name in weights)


def _without_tag(model: str) -> str:
    """The name of an architecture, without timm's tag for its weights."""
    return model.partition(".")[0]
