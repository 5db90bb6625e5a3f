"""Recipes: training runs as typed configurations, each with its command, score, hardware and time."""

from v2m.data import DATASETS
from v2m.recipes.ade20k import UPerNetConfig
from v2m.recipes.coco import MaskRCNN1xConfig, MaskRCNN3xConfig, MaskRCNNPlainConfig
from v2m.recipes.digits import DigitsConfig, DigitsDistillConfig, DigitsFineTuneConfig
from v2m.recipes.fashion_mnist import FashionMNISTConfig
from v2m.recipes.imagenet import (
    FineTune384Config,
    ImageNetDistillConfig,
    ImageNetHierarchicalBaseConfig,
    ImageNetHierarchicalSmallConfig,
    ImageNetSmallConfig,
    ImageNetSmallLocalConfig,
    ImageNetTinyConfig,
    ImageNetTinyLocalConfig,
)
from v2m.recipes.recipe import Recipe
from v2m.recipes.scenes import ScenesBackboneConfig, ScenesDetectionConfig, ScenesSegmentationConfig
from v2m.system.names import nearest
from v2m.tasks.classification.config import ClassificationConfig
from v2m.tasks.config import TrainConfig

RECIPES: dict[str, type[Recipe]] = {
    "digits": DigitsConfig,
    "digits-finetune": DigitsFineTuneConfig,
    "digits-distill": DigitsDistillConfig,
    "fashion-mnist": FashionMNISTConfig,
    "imagenet-tiny": ImageNetTinyConfig,
    "imagenet-tiny-local": ImageNetTinyLocalConfig,
    "imagenet-small": ImageNetSmallConfig,
    "imagenet-small-local": ImageNetSmallLocalConfig,
    "imagenet-hierarchical-small": ImageNetHierarchicalSmallConfig,
    "imagenet-hierarchical-base": ImageNetHierarchicalBaseConfig,
    "imagenet-distill": ImageNetDistillConfig,
    "finetune-384": FineTune384Config,
    "scenes-backbone": ScenesBackboneConfig,
    "scenes-detection": ScenesDetectionConfig,
    "scenes-segmentation": ScenesSegmentationConfig,
    "coco-mask-rcnn-1x": MaskRCNN1xConfig,
    "coco-mask-rcnn-3x": MaskRCNN3xConfig,
    "coco-mask-rcnn-plain": MaskRCNNPlainConfig,
    "ade20k-upernet": UPerNetConfig,
}
"""The recipes by name. That of a dataset has the dataset's name."""


def find_recipe(name: str) -> type[Recipe]:
    """The recipe of this name.

    Raises:
        ValueError: there is none; the message names the nearest ones.
    """
    if name not in RECIPES:
        names = nearest(name, RECIPES, most=3) or list(RECIPES)
        raise ValueError(f"recipe: {name!r} is no recipe, nearest: {', '.join(names)} (see 'v2m recipes')")
    return RECIPES[name]


def recipe_of(data: str | None) -> type[TrainConfig]:
    """Where the settings for a dataset start: its recipe, where it comes by name and has one."""
    return RECIPES[data] if data in DATASETS and data in RECIPES else ClassificationConfig


__all__ = ["RECIPES", "FashionMNISTConfig", "Recipe", "find_recipe", "recipe_of"]
