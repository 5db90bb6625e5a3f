"""Turn plain data of a file into dataclasses. Every value must have the type of its field."""

import dataclasses
import types
from collections.abc import Mapping
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from v2m.system.errors import shown

T = TypeVar("T")

LARGEST = 2**22
"""The largest whole number that a setting of a saved model may be."""


def typed(kind: type[T], values: Any, name: str = "", is_open: bool = False, largest: int = LARGEST) -> T:
    """Make a dataclass of settings from plain data. A list becomes a tuple where the field is a tuple.

    Args:
        kind: The dataclass.
        values: Its fields by name, as JSON gives them.
        name: The setting that the data are the value of, for errors.
        is_open: Whether to leave out unknown names instead of refusing them.
        largest: The largest number that is taken.

    Raises:
        ValueError: a field is missing, is unknown, or has a value that is not of its type; or the dataclass
            refuses it.
    """
    if not isinstance(values, dict):
        raise ValueError(f"{name or 'the file'} is {brief(values)}, expected settings by name")
    fields = {field.name: field for field in dataclasses.fields(kind)}  # type: ignore[arg-type]
    prefix = f"{name}." if name else ""
    if not is_open and (unknown := [key for key in values if key not in fields]):
        raise ValueError(f"{prefix}{shown(str(unknown[0]))[:60]} is no setting")
    hints = get_type_hints(kind)
    given = {key: _value(hints[key], values[key], prefix + key, largest) for key in fields if key in values}
    for key, field in fields.items():
        is_needed = field.default is field.default_factory is dataclasses.MISSING
        if is_needed and key not in given:
            raise ValueError(f"{prefix}{key} is missing")
    return kind(**given)


def brief(value: Any) -> str:
    """A value, shortened and made harmless, as part of a line."""
    if isinstance(value, dict | list | str) and len(value) > 40:
        return f"a {type(value).__name__} of {len(value):,}"
    text = shown(repr(value))
    return text if len(text) <= 60 else f"{text[:57]}..."


def _value(kind: Any, value: Any, name: str, largest: int) -> Any:
    origin, options = get_origin(kind), get_args(kind)
    if kind is Any:
        return value
    if origin in (Union, types.UnionType):
        return _first(options, value, name, largest)
    if origin is tuple and isinstance(value, list | tuple):
        kinds = options[:1] * len(value) if options[-1] is Ellipsis else options
        if len(kinds) == len(value):
            return tuple(
                _value(k, v, f"{name}[{i}]", largest)
                for i, (k, v) in enumerate(zip(kinds, value, strict=True))
            )
    elif origin is list and isinstance(value, list):
        return [_value(options[0], v, f"{name}[{i}]", largest) for i, v in enumerate(value)]
    elif origin is dict and isinstance(value, dict):
        return {key: _value(options[1], v, f"{name}.{key}", largest) for key, v in value.items()}
    elif origin is Literal and value in options and type(value) is str:
        return value
    elif dataclasses.is_dataclass(kind):
        return typed(kind, value, name, largest=largest)  # type: ignore[arg-type]
    elif kind is dict and isinstance(value, dict):
        return value
    elif kind is list and isinstance(value, list | tuple):
        return list(value)
    elif _is_scalar(kind, value, largest):
        return kind(value) if kind is float else value
    bound = f" up to {largest:,}" if kind in (int, float) and type(value) in (int, float) else ""
    raise ValueError(f"{name} is {brief(value)}, expected {_expected(kind)}{bound}")


def _first(kinds: tuple[Any, ...], value: Any, name: str, largest: int) -> Any:
    if value is None and type(None) in kinds:
        return None
    # The last type of a union is tried on its own, so that its error is the one that is reported.
    kinds = tuple(kind for kind in kinds if kind is not type(None))
    for kind in kinds[:-1]:
        try:
            return _value(kind, value, name, largest)
        except ValueError:
            continue
    return _value(kinds[-1], value, name, largest)


def _is_scalar(kind: Any, value: Any, largest: int) -> bool:
    # Exact types, because isinstance takes True for a whole number.
    if kind is int:
        return type(value) is int and abs(value) <= largest
    if kind is float:
        return type(value) in (int, float) and abs(value) <= largest
    return kind in (str, bool) and type(value) is kind


def _expected(kind: Any) -> str:
    origin, options = get_origin(kind), get_args(kind)
    if origin is Literal:
        return " or ".join(map(repr, options))
    if origin is tuple and options[-1] is not Ellipsis:
        return f"a list of {len(options)}"
    if origin in (tuple, list):
        return "a list"
    if origin is dict or (isinstance(kind, type) and issubclass(kind, Mapping)):
        return "settings by name"
    names = {int: "a whole number", float: "a number", str: "text", bool: "true or false"}
    return names.get(kind, str(kind))
