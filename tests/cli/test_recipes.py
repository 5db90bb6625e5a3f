import pytest

from tests.cli.test_cli import fails
from v2m.cli import main
from v2m.recipes import RECIPES


def test_the_table_names_every_recipe_and_where_it_is_from(capsys):
    assert main(["recipes"]) == 0
    out, error = capsys.readouterr()
    assert error == ""
    rows = {line.split()[0]: line for line in out.splitlines() if line.strip()}
    for name, recipe in RECIPES.items():
        assert recipe.model in rows[name]
        for words in (recipe.images, recipe.expected, recipe.source):
            assert words in rows[name]


@pytest.mark.parametrize("name", RECIPES)
def test_one_recipe_is_shown_with_its_settings(name, capsys):
    assert main(["recipes", name]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == RECIPES[name].__doc__.splitlines()[0]
    assert any(line.startswith("Hardware and time: ") for line in lines)
    options = [line.split()[0] for line in lines if line.startswith("  --")]
    assert options[0] == "--data"
    assert ("--batch_size" in options) == (RECIPES[name].batch_size != 32)
    assert lines[-1].endswith(f"v2m train --recipe {name} --print_config")


@pytest.mark.parametrize(
    "arguments", [["recipes", "imagenet-smal"], ["train", "--recipe", "imagenet-smal", "--data", "digits"]]
)
def test_an_unknown_recipe_gets_one_line_with_the_nearest(arguments, capsys):
    code, error = fails(capsys, *arguments)
    assert code == 1
    assert "recipe: 'imagenet-smal' is no recipe, nearest: imagenet-small" in error


def test_a_recipe_that_needs_a_folder_says_so(capsys):
    code, error = fails(capsys, "train", "--recipe", "imagenet-tiny")
    assert code == 2
    assert "data" in error


def test_help_shows_the_recipes_settings(capsys):
    with pytest.raises(SystemExit):
        main(["train", "--recipe", "imagenet-small", "--help"])
    shown = " ".join(capsys.readouterr().out.split())
    assert "(type: int, default: 512)" in shown
    assert "Images per step, over all processes." in shown
