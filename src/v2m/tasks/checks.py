"""Checks that settings of several tasks share: each error names the setting, its value and what is expected.

A check takes a dataclass of settings, the prefix of their names on the command line, and the fields to look
at. A field that is None is left open, and passes.
"""

from collections.abc import Iterator
from typing import Any


def check_least(settings: Any, prefix: str, least: float, *fields: str) -> None:
    """Raise a ``ValueError`` unless numbers are at least ``least``."""
    for name, value in _given(settings, prefix, fields):
        if not value >= least:
            raise ValueError(f"{name} is {value}, expected at least {least}")


def check_shares(settings: Any, prefix: str, *fields: str) -> None:
    """Raise a ``ValueError`` unless numbers are in 0..1."""
    for name, value in _given(settings, prefix, fields):
        if not 0 <= value <= 1:
            raise ValueError(f"{name} is {value}, expected a number from 0 to 1")


def check_range(settings: Any, prefix: str, *fields: str) -> None:
    """Raise a ``ValueError`` unless pairs are a least and a largest positive number."""
    for name, (least, largest) in _given(settings, prefix, fields):
        if not 0 < least <= largest:
            raise ValueError(f"{name} is {[least, largest]}, expected 0 < least <= largest")


def check_colours(settings: Any, prefix: str, *fields: str) -> None:
    """Raise a ``ValueError`` unless there are three numbers, one for each channel of a colour image."""
    for name, values in _given(settings, prefix, fields):
        if len(values) != 3:
            raise ValueError(f"{name} is {list(values)}, expected three numbers")


def check_smoothing(settings: Any) -> None:
    """Raise a ``ValueError`` unless ``loss.label_smoothing`` leaves something of the label."""
    if not 0 <= settings.label_smoothing < 1:
        raise ValueError(f"loss.label_smoothing is {settings.label_smoothing}, expected a share below 1")


def _given(settings: Any, prefix: str, fields: tuple[str, ...]) -> Iterator[tuple[str, Any]]:
    for field in fields:
        value = getattr(settings, field)
        if value is not None:
            yield prefix + field, value
