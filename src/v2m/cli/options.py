"""Options of a command: a frozen dataclass. Its fields become arguments, its docstring is their help."""

import inspect
import re
import sys
from collections.abc import Sequence
from dataclasses import MISSING, Field, dataclass, field, fields, is_dataclass
from typing import Any, NoReturn, TypeVar, get_args, get_origin, get_type_hints

import docstring_parser
import yaml
from jsonargparse import ArgumentParser, Namespace

from v2m.cli.mistakes import as_typed, in_words
from v2m.cli.plain import PLAIN
from v2m.engine import processes
from v2m.system.devices import AUTO
from v2m.system.errors import shown
from v2m.tasks.config import default_data_dir

LONGEST_ERROR = 1000
"""Most letters of an error: it may show what it was given, however long that is."""
POSITIONAL, FLAG, HELP = "positional", "flag", "help"
"""What the metadata of a field say of its argument."""
NO_ARGUMENT = {"argument": False}
"""Metadata of a field that no argument is for."""

O = TypeVar("O", bound="Options")  # noqa: E741 - the type of some options


def positional(default: Any = MISSING, help: str | None = None) -> Any:
    """A field whose argument is given by its place, without a name.

    Args:
        default: Its value where the argument is left out.
        help: Its help where that is no constant, instead of the docstring's.
    """
    return field(default=default, metadata={POSITIONAL: True, HELP: help})


def flag() -> Any:
    """A field that is true where its option is given, which takes no value."""
    return field(default=False, metadata={FLAG: True})


class Parser(ArgumentParser):
    """The parser of one command. It prints one line for an error, with the nearest option if one is unknown.

    Args:
        command: The command as it is typed after ``v2m``.
        description: What it is for.
    """

    def __init__(self, command: str, description: str = "") -> None:
        super().__init__(
            prog=f"v2m {command}", description=description, parser_mode=PLAIN, allow_abbrev=False
        )

    @property
    def option_names(self) -> list[str]:
        """Names of the options, without dashes."""
        return [name[2:] for name in self._option_string_actions if name.startswith("--")]

    def parse_plain(self, arguments: Sequence[str]) -> Namespace:
        """Parse arguments that hold plain data alone; the environment has no options."""
        try:
            return self.parse_args(list(arguments), env=False)
        except AttributeError as error:
            # It comes of jsonargparse, which reads the value '!!timestamp x' by itself.
            self.error(str(error))

    def dump(self, *args: Any, **options: Any) -> str:
        """Settings as YAML, with escapes if there is what a terminal must not get."""
        text = super().dump(*args, **options)
        is_plain = all(shown(line) == line for line in text.split("\n"))
        return text if is_plain else yaml.safe_dump(yaml.safe_load(text), sort_keys=False)

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Print what is wrong and exit with 2."""
        line = in_words(" ".join(message.split()), self)
        if len(line) > LONGEST_ERROR:
            line = f"{line[:LONGEST_ERROR]}..."
        # Every process of a run comes here at once; the first one tells.
        processes.give_way()
        sys.stderr.write(shown(f"v2m: error: {as_typed(line, self.option_names)}") + "\n")
        sys.exit(2)


@dataclass(frozen=True, kw_only=True)
class Options:
    """Options of a command. A subclass is a frozen dataclass with a field for each, keyword-only.

    The type of a field says what is parsed, a tuple takes several values. A field without a default has to be
    given. ``positional`` and ``flag`` mark other kinds of arguments. The ``Attributes`` of the docstring are
    the help.
    """

    @classmethod
    def parse(cls: type[O], parser: Parser, arguments: Sequence[str]) -> O:
        """Add the options to a new parser of the command, and read its arguments.

        Wrong arguments print an error and exit.
        """
        add_arguments(parser, cls)
        return built(cls, parser, parser.parse_plain(arguments))


@dataclass(frozen=True, kw_only=True)
class DataDirOptions(Options):
    """Where named datasets are.

    Attributes:
        data_dir: Where named datasets are kept.
    """

    data_dir: str = field(default_factory=default_data_dir)


@dataclass(frozen=True, kw_only=True)
class ImageOptions(DataDirOptions):
    """Where images are read.

    Attributes:
        allow_outside: Read images outside of the data folder too, where COCO or parquet files name them.
    """

    allow_outside: bool = False


@dataclass(frozen=True, kw_only=True)
class DeviceOptions(Options):
    """What computes.

    Attributes:
        device: auto takes a GPU if there is one; else cpu, cuda, cuda:1 and so on, mps or xpu.
    """

    device: str = AUTO


def add_arguments(parser: ArgumentParser, kind: type[Any], prefix: str = "") -> None:
    """Add an argument for each field of a dataclass, and for those of dataclasses in it by dotted names."""
    help, types = descriptions(kind), get_type_hints(kind)
    for item in fields(kind):
        if item.metadata == NO_ARGUMENT:
            continue
        if is_dataclass(types[item.name]):
            add_arguments(parser, types[item.name], f"{prefix}{item.name}.")
        else:
            add_argument(parser, item, types[item.name], prefix, item.metadata.get(HELP) or help[item.name])


def add_argument(parser: Any, item: Field[Any], kind: Any, prefix: str, help: str) -> None:
    """Add the argument of a field to a parser or a group in one.

    Args:
        parser: Where to.
        item: The field.
        kind: Its type.
        prefix: What comes before its name, with a dot.
        help: Its help.
    """
    name, is_positional = prefix + item.name, item.metadata.get(POSITIONAL)
    default = item.default if item.default_factory is MISSING else item.default_factory()
    if item.metadata.get(FLAG):
        parser.add_argument(f"--{name}", action="store_true", help=help)
        return
    more: dict[str, Any] = dict(type=kind, help=help)
    # A tuple, or one or nothing, takes its values one after the other.
    several = next((part for part in (kind, *get_args(kind)) if get_origin(part) is tuple), None)
    if several:
        more |= dict(type=get_args(several)[0], nargs="+" if default is MISSING or not is_positional else "*")
    elif is_positional and default is not MISSING:
        more["nargs"] = "?"
    if default is not MISSING:
        more["default"] = list(default) if isinstance(default, tuple) else default
    elif not is_positional:
        more["required"] = True
    parser.add_argument(name if is_positional else f"--{name}", **more)


def built(kind: type[O], parser: Parser, found: Namespace, **more: Any) -> O:
    """The options that were parsed, and more fields. Values that they refuse are an error of the parser."""
    try:
        return kind(**_values(kind, found), **more)
    except ValueError as error:
        parser.error(str(error))


def _values(kind: type[Any], found: Namespace) -> dict[str, Any]:
    types, values = get_type_hints(kind), {}
    for item in fields(kind):
        if item.metadata == NO_ARGUMENT:
            continue
        value, own = found[item.name], types[item.name]
        if is_dataclass(own) and isinstance(own, type):
            value = own(**_values(own, value))
        values[item.name] = tuple(value) if isinstance(value, list) else value
    return values


def descriptions(kind: type[Any]) -> dict[str, str]:
    """Descriptions of the fields of a dataclass and of its bases, from their docstrings."""
    found: dict[str, str] = {}
    for base in reversed(kind.__mro__):
        doc = docstring_parser.parse(inspect.getdoc(base) or "")
        found |= {item.arg_name: re.sub(r"\s+", " ", item.description or "") for item in doc.params}
    return found
