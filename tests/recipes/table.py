"""The table of recipes in docs/recipes.md: ``python -m tests.recipes.table`` writes it."""

from tests.helpers import REPOSITORY
from v2m.recipes import COLUMNS, RECIPES

DOCUMENT = REPOSITORY / "docs" / "recipes.md"
BEGIN = "<!-- The recipes in src/v2m/recipes/, written by make docs. -->\n"
END = "<!-- End of the recipes. -->\n"


def table():
    """The recipes as Markdown, names of code in its font."""
    lines = [COLUMNS, ["---"] * len(COLUMNS)]
    for name, model, *others in (recipe.cells for recipe in RECIPES.values()):
        lines.append([f"`{name}`", f"`{model}`", *others])
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


def with_table(text):
    """The document with the table of today between the marks."""
    before, _, rest = text.partition(BEGIN)
    _, mark, after = rest.partition(END)
    assert mark, f"{DOCUMENT.name} has no lines {BEGIN!r} and {END!r}"
    return before + BEGIN + "\n" + table() + "\n" + END + after


if __name__ == "__main__":
    DOCUMENT.write_text(with_table(DOCUMENT.read_text(encoding="utf-8")), encoding="utf-8")
