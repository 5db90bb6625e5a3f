"""What documents say of scores and speeds is in result files."""

import re

import pytest

from tests.documents.blocks import PAGES, read_page
from tests.documents.figures import FIGURES
from tests.documents.markdown import significant
from tests.documents.tables import TABLES
from tests.documents.write import MARK, written


@pytest.mark.parametrize("page", PAGES)
def test_documents_have_the_figures_of_the_result_files(page):
    """If this fails: make docs."""
    text = read_page(page)
    assert written(text) == text


def test_every_table_and_figure_is_in_a_document():
    used = {name for page in PAGES for _, name, *_ in MARK.findall(read_page(page))}
    assert used == TABLES.keys() | FIGURES.keys()


def test_what_is_around_the_marks_stays():
    old = (
        "before <!-- result: digits -->12 %<!-- end --> after\n"
        "<!-- result: digits_probe -->\nold\n<!-- end -->\n"
    )
    new = written(old)
    assert re.match(r"before <!-- result: digits -->\d\d\.\d\d %<!-- end --> after\n", new)
    assert "-->\n\n| model | features |" in new
    assert new.endswith(" |\n\n<!-- end -->\n")
    assert "12 %" not in new
    assert "old" not in new
    assert written(new) == new


@pytest.mark.parametrize("text", ["<!-- result: digits -->12 %", "<!-- result: digit -->12 %<!-- end -->"])
def test_a_wrong_mark_is_an_error(text):
    with pytest.raises(ValueError, match=r"is not closed|digit is neither"):
        written(text)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.394, "0.39"),
        (2.327, "2.33"),
        (9.996, "10.0"),
        (10.84, "10.8"),
        (591.3, "591"),
        (5999.8, "6,000"),
        (1.0, "1.00"),
    ],
)
def test_numbers_have_three_digits_that_count(value, text):
    assert significant(value) == text
