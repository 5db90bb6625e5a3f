"""List the recipes of v2m train, or show one of them."""

import json
import textwrap
from dataclasses import dataclass

from rich.console import Console

from v2m.cli.options import Options, positional
from v2m.recipes import COLUMNS, RECIPES, Recipe, find_recipe, starting_config
from v2m.system.tables import Column, Kind, TextTable
from v2m.tasks.config import settings

WIDTH = 110
"""Most letters of a line of text."""


@dataclass(frozen=True, kw_only=True)
class RecipesOptions(Options):
    """Options of ``v2m recipes``.

    Attributes:
        name: Which; by default all are listed.
    """

    name: str | None = positional(None, help=f"Which, by default all are listed: {', '.join(RECIPES)}.")


def run(options: RecipesOptions) -> int:
    """List the recipes, or show the one that is named."""
    from v2m.cli.output import console

    out = console()
    if options.name:
        _show(find_recipe(options.name), out)
        return 0
    name, model, *texts = COLUMNS
    names = Column(name, Kind.NAME), Column(model, Kind.NAME)
    table = TextTable(*names, *(Column(text, Kind.TEXT) for text in texts), first_left_out=[texts[-1], model])
    for recipe in RECIPES.values():
        table.add_row(*recipe.cells)
    out.print(table)
    out.print()
    out.print("v2m recipes NAME tells more of one, v2m train --recipe NAME runs it.")
    return 0


def _show(recipe: Recipe, out: Console) -> None:
    out.print(recipe.title)
    out.print()
    for command in recipe.commands:
        out.print(f"  {command}", soft_wrap=True)
    for paragraph in (
        recipe.details,
        f"Expected: {recipe.expected} ({recipe.source}). {recipe.score_details}",
        f"Hardware and time: {recipe.hardware}.",
    ):
        if paragraph:
            out.print()
            for line in textwrap.wrap(paragraph, WIDTH, break_on_hyphens=False):
                out.print(line)
    out.print()
    out.print("Where it differs from the general settings:")
    general = settings(starting_config(task=recipe.config.task))
    for option, value in settings(recipe.config).items():
        if option == "data" or value != general[option]:
            out.print(f"  --{option} {value if isinstance(value, str) else json.dumps(value)}")
    out.print()
    out.print(f"All settings: v2m train --recipe {recipe.name} --print_config")
