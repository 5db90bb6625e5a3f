"""Tables of commands in terminals of any width, and where nobody looks at them."""

import io
import re

import pytest
from PIL import Image
from rich.cells import cell_len

from tests.cli.test_cli import run  # noqa: F401
from v2m.cli import main
from v2m.models import MODELS
from v2m.recipes import RECIPES

WIDTHS = (40, 60, 80, 120, 200)


class _Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def shown(monkeypatch):
    """The lines that a command prints in a terminal of some width."""

    def lines(width, *arguments, code=0):
        out = _Terminal()
        monkeypatch.setenv("COLUMNS", str(width))
        monkeypatch.setattr("sys.stdout", out)
        assert main([*map(str, arguments)]) == code
        text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", out.getvalue())
        return [line.rpartition("\r")[2].rstrip() for line in text.splitlines()]

    return lines


def fits(lines, width):
    assert max(map(cell_len, lines)) <= width
    assert "…" not in "".join(lines)


@pytest.mark.parametrize("width", WIDTHS)
def test_models(shown, width):
    lines = shown(width, "list")
    fits(lines, width)
    assert [line.split()[0] for line in lines if line.startswith("v2m_")] == list(MODELS)
    assert re.search(r"v2m_nano +212,584", "\n".join(lines))
    assert ("No room for" in " ".join(lines)) == (width <= 80)


@pytest.mark.parametrize("width", WIDTHS)
def test_operations_of_models_are_shown_where_they_are_asked_for(shown, width):
    lines = shown(width, "list", "v2m_nano", "--flops")
    table = lines[: lines.index("")]
    fits(table, width)
    assert "GFLOPs" in " ".join(table).partition("No room")[0]


@pytest.mark.parametrize("width", WIDTHS)
def test_recipes(shown, width):
    lines = shown(width, "recipes")[:-2]
    fits(lines, width)
    if width >= 60:
        assert [name for name in RECIPES if not any(line.split()[:1] == [name] for line in lines)] == []
    assert ("model" in lines[0]) == (width > 80)


def test_where_nobody_looks_every_row_is_one_whole_line(capsys):
    assert main(["recipes"]) == 0
    lines = capsys.readouterr().out.splitlines()
    rows = [line for line in lines[1 : lines.index("")]]
    assert len(rows) == len(RECIPES)
    for row, recipe in zip(rows, RECIPES.values(), strict=True):
        assert re.split(r" {2,}", row.rstrip()) == list(recipe.cells)


@pytest.fixture(scope="module")
def long_names(tmp_path_factory):
    """Images of two classes whose names differ at their ends alone, and of one whose letters are wide."""
    folder = tmp_path_factory.mktemp("long_names")
    names = ["the-same-beginning-of-a-long-name-" + end for end in ("one", "two")] + ["\u732b" * 20]
    for split in ("train", "val"):
        for shade, name in enumerate(names):
            (folder / split / name).mkdir(parents=True)
            Image.new("RGB", (12, 9), (80 * shade, 0, 0)).save(folder / split / name / "0.png")
    return folder


@pytest.mark.parametrize("width", WIDTHS)
def test_data_check(shown, tmp_path, long_names, width):
    lines = shown(
        width, "data", "check", long_names, "--output", tmp_path, "--workers=0", "--tiny=16", code=1
    )
    first, second = (index for index, line in enumerate(lines) if not line)
    fits(lines[:second], width)
    assert "…" not in "".join(lines)
    assert re.search(r"^images +3", "\n".join(lines), re.MULTILINE)
    assert any(re.match(r"tiny +3", line) for line in lines[first:])


def test_scores_of_classes_and_predictions(shown, run, tmp_path):  # noqa: F811
    image = tmp_path / ("a-long-name-of-an-image-" * 2 + ".png")
    Image.new("RGB", (12, 8)).save(image)
    for width in WIDTHS:
        lines = shown(width, "eval", run, "--output", tmp_path / "scores")
        start = next(place for place, line in enumerate(lines) if "precision" in line)
        table = lines[start : lines.index("", start)]
        fits(table, width)
        assert "F1" in table[0]
        assert re.search(r"red +\d+ +\d+\.\d%", "\n".join(table))

        lines = shown(width, "predict", run, image)
        fits(lines, width)
        # Its name is whole, and the likeliest class is beside it.
        start = next(place for place, line in enumerate(lines) if "image" in line and "1." in line)
        assert "%" in lines[start + 1]
        rows = lines[start + 1 :]
        assert str(image) in "".join(line.split("  ")[0] for line in rows)
