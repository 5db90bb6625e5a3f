"""Reading YAML in bounds: plain data, of a size that is known before anything is built."""

import re
from pathlib import Path
from typing import Any

import yaml

from v2m.system.errors import DataError, first_line
from v2m.system.files import DEEPEST, read_file

YAML_BYTES = 2**22
"""The largest YAML file that is read, and the most that values may amount to, with aliases written out."""
BYTES_OF_VALUE = 16
"""What a value counts for, besides its letters."""
LONGEST_NUMBER = 1000


class NoYamlError(DataError):
    """Text that is no YAML of plain data."""


def read_yaml_text(path: str | Path) -> str:
    """The text of a YAML file.

    Raises:
        ValueError: it is too large, no regular file, or not in UTF-8.
        OSError: it cannot be read.
    """
    return read_file(path, YAML_BYTES).decode("utf-8-sig")


def read_yaml(path: str | Path) -> dict[str, Any]:
    """The settings in a YAML file, by name.

    Raises:
        ValueError: the file has none, or is refused as by ``parse_yaml``; the message is the reason.
        OSError: it cannot be read.
    """
    return parse_settings(read_yaml_text(path))


def parse_settings(text: str) -> dict[str, Any]:
    """The settings that YAML says, by name.

    Raises:
        DataError: there are none, or it is refused as by ``parse_yaml``; the message is the reason.
    """
    found = parse_yaml(text)
    if not isinstance(found, dict):
        raise DataError("no settings, such as epochs: 12")
    if wrong := [name for name in found if not isinstance(name, str)]:
        raise DataError(f"the setting {wrong[0]!r}, expected a name")
    return found


def parse_yaml(text: str) -> Any:
    """What YAML says: text, numbers, truth values, nothing, and lists and mappings of them.

    Numbers such as 1e-3 are numbers, dates are text. Aliases are taken, but not of what they are in.

    Raises:
        NoYamlError: it is no YAML, or has a tag of something else; the message is the reason.
        DataError: it is nested too deeply, or its values are too many, likewise.
    """
    try:
        _check_size(text)
        return yaml.load(text, _Loader)
    except yaml.MarkedYAMLError as error:
        line = f"line {error.problem_mark.line + 1}: " if error.problem_mark else ""
        raise NoYamlError(f"{line}{error.problem}") from None
    except yaml.YAMLError as error:
        raise NoYamlError(first_line(error)) from None
    except DataError:
        raise
    except (ValueError, KeyError) as error:  # !!int x, !!bool x
        raise NoYamlError(f"a value that cannot be read ({first_line(error)})") from None


def _check_size(text: str) -> None:
    """Refuse text whose values are nested too deeply or, with aliases written out, too many."""
    total = documents = 0
    opened: list[tuple[str | None, int]] = []
    sizes: dict[str | None, int | None] = {}  # None while the value of an anchor is open
    # Events are read before any value is built: nine aliases in nine would soon be a billion values.
    for event in yaml.parse(text, _Loader):
        before = total
        if isinstance(event, yaml.DocumentStartEvent):
            documents += 1
        elif isinstance(event, yaml.CollectionStartEvent):
            opened.append((event.anchor, total))
            if event.anchor:
                sizes[event.anchor] = None
            total += BYTES_OF_VALUE
        elif isinstance(event, yaml.CollectionEndEvent):
            anchor, start = opened.pop()
            if anchor:
                sizes[anchor] = total - start
        elif isinstance(event, yaml.ScalarEvent):
            total += BYTES_OF_VALUE + len(event.value)
            if event.anchor:
                sizes[event.anchor] = total - before
        elif isinstance(event, yaml.AliasEvent):
            size = sizes.get(event.anchor, 0)  # an unknown one is the loader's to refuse
            if size is None:
                raise DataError(f"*{event.anchor} refers to what it is in")
            total += size
        if len(opened) > DEEPEST:
            raise DataError(f"nested more than {DEEPEST} levels deep")
        if total > YAML_BYTES:
            raise DataError("too many values")
    if documents > 1:
        raise NoYamlError(f"{documents} documents, expected one")


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """PyYAML's safe loader, for plain data only."""

    def construct_yaml_int(self, node: yaml.ScalarNode) -> int:
        """A number that can be computed with, and printed, in no time."""
        if len(node.value) > LONGEST_NUMBER:
            raise ValueError(f"a number of {len(node.value):,} digits")
        return super().construct_yaml_int(node)


PLAIN = [f"tag:yaml.org,2002:{name}" for name in ("null", "bool", "float", "str", "seq", "map")]
RESOLVED_OTHERWISE = "timestamp", "float", "value"
FLOAT = r"[-+]?(?:\d[\d_]*\.[\d_]*|\.\d[\d_]*)(?:[eE][-+]?\d+)?|[-+]?\d[\d_]*[eE][-+]?\d+"
SPECIAL = r"[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)"

# Only tags of plain data have constructors. Numbers are those of JSON too, and dates stay text.
_Loader.yaml_constructors = {tag: yaml.SafeLoader.yaml_constructors[tag] for tag in (*PLAIN, None)}
_Loader.add_constructor("tag:yaml.org,2002:int", _Loader.construct_yaml_int)
_Loader.yaml_implicit_resolvers = {
    letter: [(tag, pattern) for tag, pattern in found if not tag.endswith(RESOLVED_OTHERWISE)]
    for letter, found in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(rf"(?:{FLOAT}|{SPECIAL})\Z", re.ASCII), list("-+0123456789.")
)
