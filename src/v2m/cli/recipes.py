"""``v2m recipes``: the table of recipes, or one of them."""

import inspect
import json
from typing import Any

from rich.console import Console
from rich.table import Table

from v2m.recipes import RECIPES, Recipe, find_recipe
from v2m.tasks import find_task
from v2m.tasks.config import settings


def run(options: Any, out: Console) -> int:
    """List the recipes, or show the one that is named.

    Args:
        options: Parsed options of ``v2m recipes``.
        out: Where to print.
    """
    if options.name:
        _show(options.name, find_recipe(options.name), out)
        return 0
    table = Table("recipe", "model", "data", "expected", "where from", box=None, header_style="bold")
    for name, recipe in RECIPES.items():
        table.add_row(name, _example(recipe).model, recipe.images, recipe.expected, recipe.source)
    out.print(table)
    out.print()
    out.print("v2m recipes NAME tells more of one, v2m train --recipe NAME runs it.")
    return 0


def _show(name: str, recipe: type[Recipe], out: Console) -> None:
    for line in (inspect.getdoc(recipe) or "").splitlines():
        out.print(line)
    out.print()
    out.print("Where it differs from the general settings:")
    general = settings(find_task(_example(recipe).task).config_type(data=""))
    for option, value in settings(_example(recipe)).items():
        if value != general[option]:
            out.print(f"  --{option} {value if isinstance(value, str) else json.dumps(value)}")
    out.print()
    out.print(f"All settings: v2m train --recipe {name} --print_config")


def _example(recipe: type[Recipe]) -> Recipe:
    """The recipe with its own data, or with a folder to be named."""
    return recipe(data=getattr(recipe, "data", "FOLDER"))
