import pytest

from tests.recipes.table import BEGIN, DOCUMENT, END, with_table
from v2m.recipes import RECIPES


def test_the_document_has_the_recipes_of_the_code():
    """If this fails: make docs."""
    text = DOCUMENT.read_text(encoding="utf-8")
    assert text == with_table(text)
    assert all(text.count(f"| `{name}` |") == 1 for name in RECIPES)


def test_what_is_around_the_table_stays():
    written = with_table(f"before\n{BEGIN}yesterday\n{END}after\n")
    assert written.startswith(f"before\n{BEGIN}\n| recipe | model |")
    assert written.endswith(f"|\n\n{END}after\n")
    assert "yesterday" not in written
    with pytest.raises(AssertionError, match="has no lines"):
        with_table("without marks")
