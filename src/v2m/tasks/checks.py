"""Checks that settings of several tasks share: each error names the setting, its value and what is expected.

A check takes a dataclass of settings, the prefix of their names on the command line, and the fields to look
at. A field that is None has not been decided yet, and passes.
"""

from collections.abc import Iterator
from typing import Any


def check_least(settings: Any, prefix: str, least: float, *fields: str) -> None:
    """Raise a ``ValueError`` unless each field is at least ``least``."""
    for name, value in _given(settings, prefix, fields):
        if not value >= least:  # also refuses NaN
            raise ValueError(f"{name} is {value}, expected at least {least}")


def check_shares(settings: Any, prefix: str, *fields: str) -> None:
    """Raise a ``ValueError`` unless each field is in 0..1."""
    for name, value in _given(settings, prefix, fields):
        if not 0 <= value <= 1:
            raise ValueError(f"{name} is {value}, expected a number from 0 to 1")


def check_range(settings: Any, prefix: str, *fields: str) -> None:
    """Raise a ``ValueError`` unless each field is a pair of positive numbers, the smaller one first."""
    for name, (least, largest) in _given(settings, prefix, fields):
        if not 0 < least <= largest:
            raise ValueError(f"{name} is {[least, largest]}, expected 0 < least <= largest")


def check_colours(settings: Any, prefix: str, *fields: str) -> None:
    """Raise a ``ValueError`` unless each field has three numbers, one for each channel of a colour image."""
    for name, values in _given(settings, prefix, fields):
        if len(values) != 3:
            raise ValueError(f"{name} is {list(values)}, expected three numbers")


def check_smoothing(settings: Any) -> None:
    """Raise a ``ValueError`` unless ``loss.label_smoothing`` is at least 0 and below 1."""
    if not 0 <= settings.label_smoothing < 1:
        raise ValueError(f"loss.label_smoothing is {settings.label_smoothing}, expected a share below 1")


def _given(settings: Any, prefix: str, fields: tuple[str, ...]) -> Iterator[tuple[str, Any]]:
    for field in fields:
        value = getattr(settings, field)
        if value is not None:
            yield prefix + field, value
