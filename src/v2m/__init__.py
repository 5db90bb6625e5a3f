"""V2M: Visual 2-Dimensional Mamba, a vision backbone that keeps images two-dimensional.

Importing this package registers its models with timm.
"""

from timm import create_model

from v2m.models import MODELS
from v2m.ops import selective_scan, selective_scan_2d
from v2m.recipes.run import train
from v2m.tasks.trained import load

__version__ = "0.1.0.dev0"
__all__ = [
    "__version__",
    "create_model",
    "list_models",
    "load",
    "selective_scan",
    "selective_scan_2d",
    "train",
]


def list_models() -> list[str]:
    """Names of the models that this package registers with timm, in order of size."""
    return list(MODELS)
