"""What the command line says of a mistake: the option as it was typed, and the nearest that there is."""

import re
from collections.abc import Collection, Iterator, Sequence
from types import NoneType
from typing import TYPE_CHECKING, Any, Literal, get_args, get_origin

from v2m.system.names import nearest

if TYPE_CHECKING:
    from v2m.cli.options import Parser

MOST_SUGGESTED = 4


def as_typed(message: str, options: Collection[str]) -> str:
    """A message whose first word is the name of an option, with the dashes that are typed before it."""
    found = re.match(r"([a-z]\w*)(\.\w+)*(?=: | is | has )", message)
    if not found or not {found[0], found[1]} & set(options):
        return message
    return f"--{message}"


def in_words(message: str, parser: "Parser") -> str:
    """What jsonargparse found wrong, in the words of people."""
    if found := re.match(r"unrecognized arguments: (.*)", message):
        return _unknown_argument(next(a for a in parser.args if found[1].startswith(_spaced(a))), parser)
    if found := re.search(r"Option '([\w.]+)' is not accepted", message):
        return _unknown_setting(found[1], parser)
    if found := re.search(r"Group '([\w.]+)' does not accept option '([\w.]+)'", message):
        return _unknown_setting(f"{found[1]}.{found[2]}", parser)
    if found := re.match(r"the following arguments are required: (.*)", message):
        options = parser.option_names
        missing = [f"--{name}" if name in options else name for name in found[1].split(", ")]
        verb = "is" if len(missing) == 1 else "are"
        return f"{' and '.join(missing)} {verb} required{_see(parser)}"
    message = re.sub(r'^argument (--)?|^Parser key "([\w.]+)"', r"\2", message)
    wrong = re.match(r"([\w.]+): .*?(?:Got value|Given value): (.*)", message)
    action = wrong and next((a for a in parser._actions if a.dest == wrong[1]), None)
    if wrong and action and hasattr(action, "_typehint"):
        return f"{wrong[1]}: {_wrong_value(wrong[2], action._typehint)}"
    return message


def suggest_option(name: str, options: Sequence[str]) -> list[str]:
    """Options that a mistyped one may stand for, the likeliest first.

    Args:
        name: What was typed, without dashes at the front.
        options: All options, likewise.
    """
    name = name.replace("-", "_").lower()
    group, dot, last = name.rpartition(".")
    lasts = {option: option.rpartition(".")[2] for option in options}
    siblings = [option for option in options if dot and option.rpartition(".")[0] == group]
    found = (
        [name] if name in options else [],
        [f"{group}.{near}" for near in nearest(last, [lasts[option] for option in siblings])],
        siblings,
        # The same word in another group, such as lr for optimizer.lr; then words that are alike.
        [option for option in options if lasts[option] == last],
        nearest(name, options),
        [option for option in options if len(last) > 2 and lasts[option].startswith(last)],
        [option for near in nearest(last, lasts.values()) for option in options if lasts[option] == near],
    )
    return next((names[:MOST_SUGGESTED] for names in found if names), [])


def did_you_mean(names: Sequence[str]) -> str:
    """The end of a message that suggests some names, if there are any."""
    return f"; did you mean {' or '.join(names)}?" if names else ""


def _spaced(argument: str) -> str:
    """An argument as it stands in a message."""
    return " ".join(argument.split())


def _unknown_argument(argument: str, parser: "Parser") -> str:
    if argument.startswith("-"):
        option = argument.partition("=")[0]
        names = [f"--{name}" for name in suggest_option(option.lstrip("-"), parser.option_names)]
        return f"{parser.prog} has no option {option}{did_you_mean(names) or _see(parser)}"
    is_data = "data" in parser.option_names and not any(re.match("--data(=|$)", a) for a in parser.args)
    hint = did_you_mean([f"--data {argument}"]) if is_data else _see(parser)
    return f"{parser.prog} takes no argument {argument!r} here{hint}"


def _unknown_setting(name: str, parser: "Parser") -> str:
    names = suggest_option(name, parser.option_names)
    return f"{parser.prog} has no setting {name}{did_you_mean(names) or _see(parser)}"


def _see(parser: "Parser") -> str:
    return f" (see {parser.prog} --help)"


def _wrong_value(value: str, kind: Any) -> str:
    choices = [str(choice) for choice in _choices(kind)]
    if choices:
        return f"{value!r} is none of {', '.join(choices)}{did_you_mean(nearest(value, choices))}"
    return f"expected {_in_words(kind)}, got {value!r}"


def _choices(kind: Any) -> Iterator[Any]:
    if get_origin(kind) is Literal:
        yield from get_args(kind)
        return
    for part in get_args(kind):
        yield from _choices(part)


def _in_words(kind: Any) -> str:
    """A type as people write values of it in YAML."""
    if get_origin(kind) in (tuple, list):
        return f"[{', '.join('...' if part is ... else _in_words(part) for part in get_args(kind))}]"
    if get_origin(kind) is dict:
        key, value = map(_in_words, get_args(kind))
        return f"{{{key}: {value}}}"
    if kind is NoneType:
        return "null"
    *first, last = map(_in_words, get_args(kind)) if get_args(kind) else [kind.__name__]
    return f"{', '.join(first)} or {last}" if first else last
