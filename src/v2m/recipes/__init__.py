"""Recipes: training runs as typed configurations, each with its command, score and time."""

from v2m.engine.config import TrainConfig
from v2m.recipes.fashion_mnist import FashionMNISTConfig

RECIPES: dict[str, type[TrainConfig]] = {"fashion-mnist": FashionMNISTConfig}
"""The recipe of each dataset that has one of its own; the others start from ``TrainConfig``."""

__all__ = ["RECIPES", "FashionMNISTConfig"]
