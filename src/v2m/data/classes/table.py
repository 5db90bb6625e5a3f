"""Tables of images and their labels: CSV, or JSON with one object a line.

A table may be named itself, or lie beside the images as ``metadata.csv`` or ``metadata.jsonl``, as those of
Hugging Face's image folders do.
"""

import csv
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from v2m.data.class_names import read_class_names
from v2m.data.classes.dataset import EncodedImages
from v2m.data.classes.labels import index_labels
from v2m.data.classes.source import Opener, SplitSource
from v2m.data.splits import ALL, SPLITS, usual_split
from v2m.data.urls import is_url
from v2m.system.errors import DataError, first_line, same_name
from v2m.system.files import open_file

TABLES = (".csv", ".tsv", ".jsonl")
METADATA = ("metadata.csv", "metadata.jsonl")
"""Names of tables that lie beside their images."""
IMAGE_COLUMNS = ("file_name", "filename", "image", "path", "file")
LABEL_COLUMNS = ("label", "labels", "class", "category")
SPLIT_COLUMN = "split"
DELIMITERS = (",", ";", "\t")
LONGEST_ROW = 2**16
"""Bytes of a row."""
MOST_ROWS = 2**24
MOST_DIGITS = 18
"""Digits of a label that may be an index."""


@dataclass(frozen=True)
class TableRow:
    """An image of a table.

    Attributes:
        number: Its line in the file, from 1.
        path: Where the image is.
        label: Its class: an index or a name.
        split: One of ``SPLITS``, or ``ALL`` where the table has no splits.
    """

    number: int
    path: str
    label: int | str
    split: str


def is_table(path: Path) -> bool:
    """Whether a path is a file of one of ``TABLES``, by its suffix."""
    return path.suffix.lower() in TABLES and path.is_file()


class TableImages(EncodedImages):
    """Images of a table.

    Args:
        table: The table; ``classes.txt`` beside it has the classes, if indices count in them.
        rows: The rows that are taken.

    Raises:
        DataError: an image is not there, or a label is none of the classes.
    """

    def __init__(self, table: Path, rows: Sequence[TableRow]) -> None:
        missing = [row for row in rows if not os.path.isfile(row.path)]
        if missing:
            raise DataError(
                f"data: {_where(table, missing[0].number)} names {missing[0].path}, which is not there "
                f"({len(missing):,} of {len(rows):,} images are not)"
            )
        names = read_class_names(table.parent)
        labels, listed = _as_indices([row.label for row in rows], names)
        classes, targets = index_labels(labels, listed, lambda i: _where(table, rows[i].number))
        self._paths = [row.path for row in rows]
        super().__init__(str(table), classes, targets, declared=names is not None)

    def name(self, index: int) -> str:
        """The path."""
        return self._paths[index]

    def file(self, index: int) -> str:
        """The path."""
        return self._paths[index]


def find_table_splits(table: Path, *, allow_outside: bool) -> dict[str, Opener]:
    """The splits of a table by name, or ``ALL`` images where it has no column ``split``.

    Raises:
        DataError: it cannot be read, or has no columns of images and labels.
    """
    rows = read_rows(table, allow_outside=allow_outside)
    found = dict.fromkeys(row.split for row in rows)
    order = [name for name in (ALL, *SPLITS) if name in found]
    return {name: partial(TableImages, table, [row for row in rows if row.split == name]) for name in order}


def find_metadata(source: SplitSource) -> Opener | None:
    """A folder of images of a split with their table, if that has labels."""
    return find_table_in(source.folder, source.allow_outside)


def find_table_in(folder: Path, allow_outside: bool) -> Opener | None:
    """How to open the images of a table beside them; None where there is none with labels."""
    for table in (folder / name for name in METADATA):
        if table.is_file() and _has_labels(table):
            return partial(open_metadata, table, allow_outside)
    return None


def open_metadata(table: Path, allow_outside: bool) -> TableImages:
    """The images of a table that lies beside them."""
    return TableImages(table, read_rows(table, allow_outside=allow_outside))


def _has_labels(table: Path) -> bool:
    """Whether a table has a column of labels: others say something else of images in class folders."""
    _, first = next(_read(table), (0, {}))
    return _column(first, LABEL_COLUMNS) is not None


def read_rows(table: Path, *, allow_outside: bool) -> list[TableRow]:
    """The images of a table, each once.

    Args:
        table: The table.
        allow_outside: Whether it may name images that are not in its folder.

    Raises:
        DataError: it has no columns of images and labels, a value cannot be used, or an image has two labels.
    """
    rows: dict[str, TableRow] = {}
    for number, values in _read(table):
        row = _row(table, number, values, allow_outside)
        before = rows.setdefault(row.path, row)
        if (before.label, before.split) != (row.label, row.split):
            raise DataError(
                f"data: {_where(table, number)} has {row.path} again, which is of {before.label!r} in line "
                f"{before.number}; an image has one class and is in one split"
            )
    if not rows:
        raise DataError(f"data: {table} has no rows")
    return list(rows.values())


def _row(table: Path, number: int, values: dict[str, Any], allow_outside: bool) -> TableRow:
    where = _where(table, number)
    columns = [_column(values, known) for known in (IMAGE_COLUMNS, LABEL_COLUMNS)]
    if None in columns:
        raise DataError(
            f"data: {where} has the columns {', '.join(values)[:200]}; "
            f"expected one of {', '.join(IMAGE_COLUMNS)} and one of {', '.join(LABEL_COLUMNS)}"
        )
    name, label = (values[str(column)] for column in columns)
    if not isinstance(name, str) or not name or "\0" in name:
        raise DataError(f"data: {where} has {columns[0]} {str(name)[:40]!r}, expected the path of an image")
    if isinstance(label, str):
        label = same_name(label.strip())
    if type(label) not in (int, str) or label == "" or label == -1:
        raise DataError(f"data: {where} has {columns[1]} {str(label)[:40]!r}, expected a class")
    return TableRow(number, _place(table, where, name, allow_outside), label, _split(where, values))


def _place(table: Path, where: str, name: str, allow_outside: bool) -> str:
    """The path of an image, from the folder of its table."""
    if is_url(name) or name.lower().startswith("data:"):
        raise DataError(f"data: {where} names the address {name[:80]!r}, expected a file: download it first")
    folder = os.path.abspath(table.parent)
    path = os.path.normpath(os.path.join(folder, name))
    if "\\" in name and not os.path.exists(path):  # a name of Windows
        path = os.path.normpath(os.path.join(folder, name.replace("\\", "/")))
    # Links in the folder are the user's own and are followed; names that lead out of it are the table's.
    if not allow_outside and os.path.commonpath((folder, path)) != folder:
        raise DataError(
            f"data: {where} names {name[:200]!r}, which is outside of {folder}; --allow_outside true reads it"
        )
    # Of the table's folder as it was given, so that names are like those of other formats.
    inside = os.path.relpath(path, folder)
    return path if inside.startswith(os.pardir) else str(table.parent / inside)


def _split(where: str, values: dict[str, Any]) -> str:
    column = _column(values, (SPLIT_COLUMN,))
    if column is None:
        return ALL
    split = usual_split(str(values[column]).strip())
    if split is None:
        raise DataError(
            f"data: {where} has split {str(values[column])[:40]!r}, expected one of {', '.join(SPLITS)}"
        )
    return split


def _column(values: dict[str, Any], known: Sequence[str]) -> str | None:
    by_name = {name.strip().lower(): name for name in values}
    return next((by_name[name] for name in known if name in by_name), None)


def _as_indices(
    labels: list[int | str], names: Sequence[str] | None
) -> tuple[list[int | str], Sequence[str] | None]:
    """Labels and the list of their classes. Texts that are numbers are indices where there is such a list."""
    found = set(labels)
    are_numbers = all(map(_is_number, map(str, found)))
    if names is None:
        order = sorted(found, key=int) if are_numbers else sorted(map(str, found))
        return [str(label) for label in labels], [str(label) for label in order]
    if are_numbers and not found.issubset(names):
        return [int(label) for label in labels], names
    return labels, names


def _is_number(label: str) -> bool:
    """Whether a label is a whole number as Python writes it, so that no two labels are one number."""
    return label.isdecimal() and len(label) <= MOST_DIGITS and str(int(label)) == label


def _where(table: Path, number: int) -> str:
    return f"{table}, line {number}"


def _read(table: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Each row of a table with its line, by the names of its columns."""
    read = _read_json if table.suffix.lower() == ".jsonl" else _read_csv
    for count, found in enumerate(read(table)):
        if count == MOST_ROWS:
            raise DataError(f"data: {table} has more than {MOST_ROWS:,} rows")
        yield found


def _lines(table: Path) -> Iterator[tuple[int, str]]:
    """Lines of a table in UTF-8 with their numbers, without a byte-order mark."""
    with open_file(table) as file:
        number = 0
        while line := file.readline(LONGEST_ROW + 1):
            number += 1
            if len(line) > LONGEST_ROW:
                raise DataError(f"data: {_where(table, number)} has more than {LONGEST_ROW:,} bytes")
            try:
                yield number, line.decode("utf-8-sig" if number == 1 else "utf-8")
            except UnicodeDecodeError:
                raise DataError(f"data: {_where(table, number)} is not UTF-8, save the file anew") from None


def _read_json(table: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    for number, line in _lines(table):
        if not line.strip():
            continue
        try:
            values = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise DataError(f"data: {_where(table, number)} is no JSON ({first_line(error)})") from None
        if not isinstance(values, dict):
            raise DataError(
                f"data: {_where(table, number)} is {line[:40].strip()!r}, expected an object {{...}}"
            )
        yield number, values


def _read_csv(table: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    lines = _lines(table)
    _, header = next(lines, (0, ""))
    delimiter = max(DELIMITERS, key=header.count)
    (columns,) = list(csv.reader([header], delimiter=delimiter)) or [[]]
    reader = csv.reader((line for _, line in lines), delimiter=delimiter)
    try:
        for values in reader:
            number = reader.line_num + 1  # the header is the first line
            if not values:
                continue
            if len(values) != len(columns):
                raise DataError(
                    f"data: {_where(table, number)} has {len(values)} values, expected {len(columns)} "
                    f"({', '.join(columns)[:200]})"
                )
            yield number, dict(zip(columns, values, strict=True))
    except csv.Error as error:
        raise DataError(f"data: {table} is no CSV ({error}), after line {reader.line_num + 1}") from None
