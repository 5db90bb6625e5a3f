"""Create a model by name, as timm does, with a hint where the name is mistyped."""

from functools import wraps
from typing import Any

import timm

from v2m.models.variants import MODELS
from v2m.system.names import nearest

UNKNOWN = "Unknown model"
"""How timm's error for a name begins that it does not know."""


def nearest_models(name: str) -> list[str]:
    """The models that a mistyped name may stand for: those of this package first, then timm's others."""
    names = [*nearest(name, MODELS, most=2), *nearest(name, timm.list_models(), most=2)]
    return list(dict.fromkeys(names))


@wraps(timm.create_model)
def create_model(model_name: str, *args: Any, **kwargs: Any) -> Any:
    """Timm's ``create_model``; its error for an unknown name names the nearest ones."""
    try:
        return timm.create_model(model_name, *args, **kwargs)
    except RuntimeError as error:
        if not str(error).startswith(UNKNOWN):
            raise
        names = ", ".join(nearest_models(model_name)) or "none; v2m.list_models() and timm.list_models()"
        raise RuntimeError(f"{error}, nearest: {names}") from None
