"""Values in COCO files: read where they have one meaning only, as numbers that were written as text."""

import re
from collections.abc import Callable, Sequence
from math import isfinite
from reprlib import Repr
from typing import Any, NamedTuple

from v2m.system.errors import is_text

FARTHEST = 1e6
"""Pixels from which a coordinate is taken for damage."""
MOST_SHOWN = 60
"""Letters of a value that are shown."""
LONGEST_TEXT = 4096
"""Letters of a name: no system has longer paths."""
NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)


class Field(NamedTuple):
    """What a field should be.

    Attributes:
        read: The value of what is in the file; None where that is no such value.
        expected: Such a value in words.
    """

    read: Callable[[Any], Any]
    expected: str


def read_number(value: Any) -> float | None:
    """A number, also as text."""
    # By type and not isinstance: True is an int, but no number in a file.
    if type(value) is str and NUMBER.fullmatch(value.strip()):
        try:
            return int(value)
        except ValueError:
            return float(value)
    return value if type(value) in (int, float) else None


def read_whole(value: Any) -> int | None:
    """A whole number of any size, also as text or with a point."""
    if type(value) is int:
        return value
    number = read_number(value)
    return int(number) if number is not None and _is_whole(number) else None


def _is_whole(number: float) -> bool:
    """Whether a number has no fraction; those that are not finite have one."""
    return isinstance(number, int) or number.is_integer()


def read_id(value: Any) -> int | str | None:
    """A whole number or a text; a text that is a number as it is printed is that number."""
    number = read_whole(value)
    if type(value) is str and value and str(number) != value:
        return value
    return number


def read_path(value: Any) -> str | None:
    """A text, of no more letters than a path can have."""
    return value if isinstance(value, str) and len(value) <= LONGEST_TEXT else None


def read_name(value: Any) -> str | None:
    """Likewise, but text that can be written in UTF-8; names of files may be other bytes."""
    return value if read_path(value) is not None and is_text(value) else None


def read_flag(value: Any) -> bool | None:
    """0 or 1, also as text or truth value; nothing is 0."""
    if value is None or isinstance(value, bool):
        return bool(value)
    number = read_number(value)
    return bool(number) if number in (0, 1) else None


def read_area(value: Any) -> float | None:
    """Pixels, not negative."""
    number = read_number(value)
    return number if number is not None and 0 <= number < FARTHEST**2 else None


def read_numbers(values: Any) -> list[float] | None:
    """A list of numbers, all finite and none out of all bounds."""
    if type(values) is not list:
        return None
    if not {*map(type, values)} <= {int, float}:  # most lists have numbers only, and are taken as they are
        values = [read_number(value) for value in values]
    return values if _are_coordinates(values) else None


def _are_coordinates(values: Sequence[Any]) -> bool:
    """Whether all are finite and within bounds; built-ins, since they are ten times as fast as a loop."""
    try:
        return not values or (isfinite(sum(values)) and min(values) > -FARTHEST and max(values) < FARTHEST)
    except (TypeError, OverflowError):
        return False


def read_box(value: Any) -> list[float] | None:
    """Left, top, width and height."""
    numbers = read_numbers(value)
    return numbers if numbers and len(numbers) == 4 else None


_SHORT = Repr()
_SHORT.maxlist = _SHORT.maxdict = MOST_SHOWN
_SHORT.maxstring = _SHORT.maxlong = _SHORT.maxother = 4 * MOST_SHOWN


def cut(value: Any) -> str:
    """A value of a file in a line: its start. Of what is large or deep no more than that is looked at."""
    text = _SHORT.repr(value)
    return text if len(text) <= MOST_SHOWN else f"{text[:MOST_SHOWN]}..."


ID = Field(read_id, "a whole number or text")
WHOLE = Field(read_whole, "a whole number")
PATH = Field(read_path, f"text of at most {LONGEST_TEXT} letters")
NAME = Field(read_name, f"text of at most {LONGEST_TEXT} letters")
FLAG = Field(read_flag, "0 or 1")
AREA = Field(read_area, "a number of pixels")
BOX = Field(read_box, "four finite numbers")
