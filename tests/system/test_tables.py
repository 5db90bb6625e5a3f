"""Tables: what is dropped, folded and wrapped where there is little room."""

import io
import re

import pytest
from rich.cells import cell_len
from rich.console import Console

from v2m.system.tables import Column, Kind, TextTable

WIDTHS = (20, 40, 60, 80, 120, 200)


def printed(table, width):
    console = Console(file=io.StringIO(), width=width)
    console.print(table)
    lines = [line.rstrip() for line in console.file.getvalue().splitlines()]
    assert max(map(cell_len, lines)) <= width
    assert "…" not in "".join(lines)
    return lines


def models(*names):
    table = TextTable(
        Column("model", Kind.NAME),
        Column("parameters"),
        Column("largest error"),
        Column("state"),
        Column("about", Kind.TEXT),
        first_left_out=["state"],
    )
    for number, name in enumerate(names):
        table.add_row(name, f"{10**7 + number:,}", "1.25e-06", str(number), "words that may be wrapped " * 3)
    return table


def left_out(lines):
    return re.findall(r"No room for: (.*)\. A wider", " ".join(lines))


@pytest.mark.parametrize("width", WIDTHS)
def test_no_name_and_no_number_is_cut(width):
    lines = printed(models("v2m_small_patch16_224", "v2m_small_patch16_384"), width)
    text = " ".join(lines)
    if width >= 40:
        assert [line.split()[:2] for line in lines if line.startswith("v2m")] == [
            ["v2m_small_patch16_224", "10,000,000"],
            ["v2m_small_patch16_384", "10,000,001"],
        ]
    assert ("1.25e-06" in text) == ("error" in text.partition("No room")[0])


def test_the_least_important_columns_go_first_and_are_named():
    table = models("v2m_small_patch16_224")
    assert left_out(printed(table, 200)) == []
    assert left_out(printed(table, 80)) == []
    assert left_out(printed(table, 71)) == ["state"]
    assert left_out(printed(table, 60)) == ["state, about"]
    assert left_out(printed(table, 40)) == ["largest error, state, about"]


def test_texts_are_wrapped_at_words_before_columns_go():
    lines = printed(models("v2m_nano"), 80)
    assert len(lines) > 2
    words = " ".join(line.rpartition("  ")[2].strip() for line in lines[1:])
    assert " ".join(words.split()) == " ".join(["words that may be wrapped"] * 3)


def test_a_heading_is_wrapped_before_its_column_goes():
    lines = printed(models("v2m_nano"), 32)
    assert [line.split() for line in lines[:2]] == [["largest"], ["model", "parameters", "error"]]


@pytest.mark.parametrize("name", ["a" * 70, "b" * 1000, "\u732b" * 100, "words of a long name " * 9])
def test_a_name_that_leaves_no_room_is_folded_beside_the_most_important_number(name):
    lines = printed(models(name, "short"), 60)
    assert lines[1].endswith("  10,000,000")
    (short,) = (line for line in lines if line.startswith("short"))
    assert short.split() == ["short", "10,000,001"]
    folded = "".join(lines[1 : lines.index(short)]).replace("10,000,000", "")
    assert folded.replace(" ", "") == name.replace(" ", "")


def test_a_name_alone_is_as_wide_as_the_terminal():
    lines = printed(models("a" * 50), 20)
    assert "".join(lines).count("a" * 20) == 2


def test_wide_letters_count_twice():
    table = TextTable(Column("class", Kind.NAME), Column("images"))
    table.add_row("\u732b\u732b", "1")
    table.add_row("cat", "22")
    assert printed(table, 40) == ["class  images", "\u732b\u732b        1", "cat        22"]


def test_letters_that_steer_a_terminal_are_shown_as_such():
    table = TextTable(Column("class", Kind.NAME), Column("images"))
    table.add_row("a\x1b[0m\n[red]b\u202e", "1")
    assert printed(table, 80)[1].split() == [r"a\x1b[0m\n[red]b\u202e", "1"]


def test_a_name_of_very_many_letters_loses_its_middle():
    table = TextTable(Column("class", Kind.NAME))
    table.add_row("a" * 5000 + "b" * 5000)
    console = Console(file=io.StringIO(), width=2000)
    console.print(table)
    name = console.file.getvalue().split()[1]
    assert (len(name), name[0], name[-1]) == (1001, "a", "b")


def test_a_table_without_rows_has_its_headings():
    assert printed(TextTable(Column("class", Kind.NAME), Column("images")), 40) == ["class  images"]


def test_a_row_has_a_cell_for_each_column():
    with pytest.raises(ValueError, match="got 1, expected 2"):
        TextTable(Column("class", Kind.NAME), Column("images")).add_row("cat")


def test_markdown_has_all_columns():
    table = TextTable(Column("variant", Kind.NAME), Column("runs"))
    table.add_row("a|b", "3")
    assert table.markdown().splitlines() == ["| variant | runs |", "| --- | ---: |", "| a&#124;b | 3 |"]
