"""Reading a file in COCO format, and what every image and category in it must have."""

import gc
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from v2m.data.coco.values import FARTHEST, ID, MOST_SHOWN, NAME, PATH, WHOLE, Field, cut
from v2m.system.errors import DataError, few, first_line
from v2m.system.files import open_file

MOST_PIXELS = 2**31
"""Of an image, by the annotations. Pillow reads a tenth of that."""

Record = dict[str, Any]

FIELDS: dict[str, dict[str, Field]] = dict(
    images=dict(id=ID, file_name=PATH, height=WHOLE, width=WHOLE),
    categories=dict(id=WHOLE, name=NAME),
    annotations={},
)
"""What every image and category must have; of annotations, those that are damaged can be left out."""


class Records(NamedTuple):
    """A file of annotations. ``FIELDS`` are there and of their types, their ids are there once.

    Attributes:
        path: The file.
        images: Its images.
        categories: Its categories.
        annotations: Its annotations, as in the file.
    """

    path: Path
    images: list[Record]
    categories: list[Record]
    annotations: list[Record]


def read_records(path: Path) -> Records:
    """Read annotations.

    Raises:
        DataError: the file is damaged, or misses something.
    """
    try:
        with _no_collection(), open_file(path) as file:
            content = json.loads(file.read())
    except DataError as error:
        raise DataError(f"data: {error}") from None
    except RecursionError:
        raise DataError(f"data: {path} is damaged (nested too deeply)") from None
    except json.JSONDecodeError as error:
        raise DataError(f"data: {path} is damaged in line {error.lineno} ({error.msg})") from None
    except ValueError as error:  # no UTF-8, or a number of thousands of digits
        raise DataError(f"data: {path} is damaged ({first_line(error)})") from None
    for kind in FIELDS:
        if not isinstance(content, dict) or not isinstance(content.get(kind), list):
            raise DataError(f"data: {path} has no list of {kind}, expected annotations in COCO format")
    records = Records(path, *(content[kind] for kind in Records._fields[1:]))
    if not records.images:
        raise DataError(f"data: {path} has no images")
    for kind, fields in FIELDS.items():
        _read_fields(path, kind, content[kind], fields)
    # Sizes are believed later, when masks of that size are made: here is where they get their bounds.
    for image in records.images:
        sides = image["height"], image["width"]
        if not 1 <= min(sides) <= max(sides) < FARTHEST or sides[0] * sides[1] > MOST_PIXELS:
            size = f"height {cut(sides[0])} and width {cut(sides[1])}"
            expected = f"at least 1, and at most {MOST_PIXELS:,} pixels"
            raise DataError(f"data: {path}: image {cut(image['id'])} has {size}, expected {expected}")
    return records


@contextmanager
def _no_collection() -> Iterator[None]:
    """Spare the garbage collector the millions of lists that are being made: a third of the time."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def _read_fields(path: Path, kind: str, records: Sequence[Any], fields: dict[str, Field]) -> None:
    """Check fields of all records; what is in the file is replaced by what was read."""
    if not {*map(type, records)} <= {dict}:
        odd = next(record for record in records if not isinstance(record, dict))
        raise DataError(f"data: {path}: {kind} hold {cut(odd)}, expected objects{_with(fields)}")
    for name, field in fields.items():
        for index, record in enumerate(records):
            value = field.read(record.get(name))
            if value is None:
                found = f"{name} {cut(record[name])}" if name in record else f"no {name}"
                which = f"id {cut(record['id'])}" if name != "id" else f"number {index + 1}"
                raise DataError(f"data: {path}: {kind} {which} has {found}, expected {field.expected}")
            record[name] = value
    ids = [record["id"] for record in records] if fields else []  # those of annotations are names only
    if len(set(ids)) < len(ids):
        twice = [str(id)[:MOST_SHOWN] for id, count in Counter(ids).items() if count > 1]
        raise DataError(f"data: {path} has ids of {kind} twice: {few(twice)}")


def _with(fields: dict[str, Field]) -> str:
    return f" with {few([*fields])}" if fields else ""
