"""Values of ``v2m train`` as people type them: lists without brackets, and switches without a value."""

import re
from collections.abc import Sequence
from dataclasses import fields, is_dataclass
from types import NoneType
from typing import Any, get_args, get_origin, get_type_hints

NOTHING = ("null", "Null", "NULL", "~", "")
"""Words for None in YAML."""


def with_brackets(arguments: Sequence[str], kind: type[Any]) -> list[str]:
    """The arguments with brackets around values of lists, and ``true`` for a switch that is only named.

    ``--trackers wandb tensorboard`` becomes ``--trackers=[wandb, tensorboard]``.

    Args:
        arguments: What was typed.
        kind: Dataclass of the settings, which have the types.
    """
    types, found, left = _types(kind), [], list(arguments)
    while left:
        argument = left.pop(0)
        option, equals, value = argument.partition("=")
        hint = types.get(option.removeprefix("--")) if option.startswith("--") else None
        if hint is bool and not equals and not _values(left):
            found.append(f"{option}=true")
        elif _is_list(hint):
            values = [value] if equals else _values(left)
            if not equals:
                del left[: len(values)]
            found += [f"{option}={_in_brackets(values, hint)}"] if values else [option]
        else:
            found.append(argument)
    return found


def _types(kind: type[Any], prefix: str = "") -> dict[str, Any]:
    """The types of all settings by their dotted names."""
    found: dict[str, Any] = {}
    types = get_type_hints(kind)
    for item in fields(kind):
        name, hint = prefix + item.name, types[item.name]
        found |= _types(hint, f"{name}.") if isinstance(hint, type) and is_dataclass(hint) else {name: hint}
    return found


def _is_list(hint: Any) -> bool:
    return any(get_origin(part) in (list, tuple) for part in (hint, *get_args(hint)))


def _values(arguments: Sequence[str]) -> list[str]:
    """What comes before the next option; a negative number is none."""
    end = (i for i, word in enumerate(arguments) if re.match(r"-(?![\d.])", word))
    return list(arguments[: next(end, len(arguments))])


def _in_brackets(values: Sequence[str], hint: Any) -> str:
    text = " ".join(values)
    # One number may stand for itself, as in --input.img_size 32.
    is_scalar = len(values) == 1 and "," not in text and not _is_pure(hint)
    if text.startswith("[") or text in NOTHING or is_scalar:
        return text
    return f"[{', '.join(values)}]"


def _is_pure(hint: Any) -> bool:
    """Whether a setting is a list or nothing."""
    kinds = [part for part in get_args(hint) if part is not NoneType]
    return get_origin(hint) in (list, tuple) or all(get_origin(part) in (list, tuple) for part in kinds)
