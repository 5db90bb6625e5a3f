"""Packages that only some of v2m needs: whether they are there, and how they are installed."""

from collections.abc import Sequence
from importlib.util import find_spec

PACKAGES = {
    "datasets": "datasets",
    "faster_coco_eval": "faster-coco-eval",
    "pyarrow": "pyarrow",
    "segmentation_models_pytorch": "segmentation-models-pytorch",
    "tensorboard": "tensorboard",
    "trackio": "trackio",
    "wandb": "wandb",
}
"""Name of each package for pip, by the module that is imported. They are the extras of ``pyproject.toml``."""


def missing(modules: Sequence[str]) -> list[str]:
    """Those of some modules that are not installed, without importing them."""
    # A folder of that name, as wandb leaves one in the working directory, has a specification but no origin.
    return [module for module in modules if getattr(find_spec(module), "origin", None) is None]


def how_to_install(*modules: str) -> str:
    """The command that installs the packages of these modules."""
    return f"pip install {' '.join(PACKAGES[module] for module in modules)}"
