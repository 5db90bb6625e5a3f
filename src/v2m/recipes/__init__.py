"""Recipes: training runs as values, each with its settings, commands, score, hardware and time."""

from dataclasses import replace

from v2m.recipes import ade20k, camvid, cifar, coco, digits, fashion_mnist, imagenet, scenes, tiny_imagenet
from v2m.recipes.photos import Given, suit
from v2m.recipes.recipe import COLUMNS, FOLDER, Recipe
from v2m.system.names import nearest
from v2m.tasks.classification.config import ClassificationConfig
from v2m.tasks.config import TrainConfig, default_data_dir
from v2m.tasks.names import CLASSIFICATION
from v2m.tasks.registry import find_known_task

RECIPES: dict[str, Recipe] = {
    recipe.name: recipe
    for module in (digits, fashion_mnist, cifar, tiny_imagenet, imagenet, scenes, camvid, coco, ade20k)
    for recipe in module.RECIPES
}
"""The recipes by name. That of a dataset has the dataset's name."""


def find_recipe(name: str) -> Recipe:
    """The recipe of this name.

    Raises:
        ValueError: there is none; the message names the nearest ones.
    """
    if name not in RECIPES:
        names = nearest(name, RECIPES, most=3) or list(RECIPES)
        raise ValueError(f"recipe: {name!r} is no recipe, nearest: {', '.join(names)} (see 'v2m recipes')")
    return RECIPES[name]


def recipe_of(data: str | None) -> Recipe | None:
    """The recipe of a dataset, if it comes by name and has one."""
    recipe = RECIPES.get(data or "")
    return recipe if recipe and recipe.config.data == data else None


def starting_config(
    recipe: str | None = None,
    task: str | None = None,
    data: str | None = None,
    given: Given | None = None,
) -> TrainConfig:
    """The settings of ``v2m train`` before options and configuration file change them.

    They are those of the named recipe, or else of the dataset's recipe, or else what suits the images in a
    folder, or else the task's general settings.

    Args:
        recipe: Value of ``--recipe``.
        task: Value of ``--task``.
        data: Value of ``--data``. It only chooses the recipe: the result's ``data`` is the recipe's, or
            ``FOLDER``.
        given: What the user has given, which settings for a folder follow; None for general settings there.

    Raises:
        ValueError: there is no such recipe or task, or the recipe is for another task.
    """
    own = recipe_of(data)
    # A dataset that comes by name is for one task, which it chooses.
    task_of_data = own.config.task if own else CLASSIFICATION
    general = find_known_task(task or task_of_data).config_type(FOLDER)
    if recipe:
        config = find_recipe(recipe).config
        if task and task != config.task:
            raise ValueError(f"task: {task} with --recipe {recipe}, which is for {config.task}")
    else:
        # Another task on the same images has other settings: the dataset's recipe is not for it.
        config = own.config if own and own.config.task == general.task else general
        if data and given and isinstance(general, ClassificationConfig) and not own:
            config = suit(general, data, given)
    # Recipes took the folder for data from the environment when they were imported; it may have changed.
    return replace(config, data_dir=default_data_dir())


__all__ = ["COLUMNS", "FOLDER", "RECIPES", "Recipe", "find_recipe", "recipe_of", "starting_config"]
