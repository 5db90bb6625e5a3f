"""Checks that settings of several tasks share: each error names the setting, its value and what is expected.

A check takes a dataclass of settings, the prefix of their names on the command line, and the fields to look
at. A field that is None is left open, and passes.
"""

from typing import Any


def check_least(settings: Any, prefix: str, least: float, *fields: str) -> None:
    """See that numbers are at least ``least``.

    Raises:
        ValueError: one is not.
    """
    for field in fields:
        value = getattr(settings, field)
        if value is not None and not value >= least:
            raise ValueError(f"{prefix}{field} is {value}, expected at least {least}")


def check_shares(settings: Any, prefix: str, *fields: str) -> None:
    """See that numbers are in 0..1.

    Raises:
        ValueError: one is not.
    """
    for field in fields:
        value = getattr(settings, field)
        if not 0 <= value <= 1:
            raise ValueError(f"{prefix}{field} is {value}, expected a number from 0 to 1")


def check_range(settings: Any, prefix: str, *fields: str) -> None:
    """See that pairs are a least and a largest positive number.

    Raises:
        ValueError: one is not.
    """
    for field in fields:
        value = getattr(settings, field)
        if value is not None and not 0 < value[0] <= value[1]:
            raise ValueError(f"{prefix}{field} is {list(value)}, expected 0 < least <= largest")


def check_colours(settings: Any, prefix: str, *fields: str) -> None:
    """See that there are three numbers, one for each channel of a colour image.

    Raises:
        ValueError: there are not.
    """
    for field in fields:
        values = getattr(settings, field)
        if values is not None and len(values) != 3:
            raise ValueError(f"{prefix}{field} is {list(values)}, expected three numbers")


def check_smoothing(settings: Any) -> None:
    """See that ``loss.label_smoothing`` leaves something of the label.

    Raises:
        ValueError: it does not.
    """
    if not 0 <= settings.label_smoothing < 1:
        raise ValueError(f"loss.label_smoothing is {settings.label_smoothing}, expected a share below 1")
