"""Plain data is all that jsonargparse gets to see: it would import and build what a setting names.

A ``class_path`` among settings whose type is open, or in the place of a group of settings, is such a name.
"""

import re
from argparse import ArgumentParser
from collections.abc import Iterator, Sequence
from dataclasses import fields, is_dataclass
from pathlib import Path
from types import NoneType
from typing import Any, get_args, get_type_hints

import yaml
from jsonargparse import ActionConfigFile, set_loader

from v2m.system.errors import DataError, shown
from v2m.system.yaml_files import NoYamlError, parse_settings, parse_yaml, read_yaml, read_yaml_text
from v2m.tasks import TASKS

PLAIN = "plain"
"""The mode of jsonargparse whose values are read here."""
NAMES_OF_CODE = {"class_path", "init_args", "dict_kwargs"}
OPTIONS = ("config", "resume")
"""Options of ``v2m train`` that a configuration file may not have."""
MAYBE_NESTED = r"[\[{:?]|-\s"
"""What stands in any text that YAML reads as a list or a mapping."""


class ConfigFileError(ValueError):
    """A configuration file that cannot be used."""


def parse_plain(text: str) -> Any:
    """What YAML says, without names of code.

    Raises:
        DataError: it has some, or is refused as by ``parse_yaml``.
    """
    found = parse_yaml(text)
    if isinstance(found, dict | list):
        _check_names(found)
    return found


set_loader(PLAIN, parse_plain, exceptions=(NoYamlError,))


def _check_names(settings: Any) -> None:
    """Refuse names of code, also in text, which jsonargparse may read as YAML once more."""
    left = [settings]
    while left:  # a loop, since settings of a stranger may be nested deeper than Python calls itself
        item = left.pop()
        if isinstance(item, list):
            left += item
        elif isinstance(item, dict):
            for name in item:
                _check_name(str(name))
            left += item.values()
        elif isinstance(item, str) and re.search(MAYBE_NESTED, item):
            try:
                inner = parse_yaml(item)
            except NoYamlError:
                continue
            if not isinstance(inner, str):
                left.append(inner)


def _check_name(name: str) -> None:
    if found := NAMES_OF_CODE & set(name.split(".")):
        raise DataError(f"{found.pop()} names code to run, expected text, numbers, lists and mappings")


def _groups() -> Iterator[str]:
    for task in TASKS.values():
        types = get_type_hints(task.config_type)
        yield from (field.name for field in fields(task.config_type) if is_dataclass(types[field.name]))


GROUPS = frozenset(_groups())
"""Settings that are made of others, such as ``optimizer``, of any task."""


def read_config(file: str | Path) -> tuple[dict[str, Any], str]:
    """The settings in a configuration file, and its text.

    Raises:
        ConfigFileError: it cannot be read, holds none, or more than plain data.
    """
    shown_file = shown(str(file))
    try:
        text = read_yaml_text(file)
    except OSError as error:
        raise ConfigFileError(f"config: {shown_file} cannot be read ({error.strerror})") from None
    except DataError as error:  # which names the file
        raise ConfigFileError(f"config: {error}") from None
    except ValueError as error:
        raise ConfigFileError(f"config: {shown_file} holds no settings ({error})") from None
    try:
        found = parse_settings(text)
        _check_names(found)
        for group in GROUPS & found.keys():
            if not isinstance(found[group], dict):
                raise DataError(f"{group} is {str(found[group])[:40]!r}, expected a mapping of settings")
        for setting, value in found.items():
            option = setting.partition(".")[0]
            if option in OPTIONS and value is not None:
                raise DataError(f"{option} is an option, not a setting")
    except ValueError as error:
        raise ConfigFileError(f"config: {shown_file} holds no settings ({error})") from None
    return found, text


def check_given(kind: type[Any], options: Any, prefix: str = "") -> None:
    """Refuse null for a setting that needs a value: jsonargparse takes it as one that is not given.

    Raises:
        ConfigFileError: there is such a setting.
    """
    types = get_type_hints(kind)
    for field in fields(kind):
        value, name = options[field.name], f"{prefix}{field.name}"
        if is_dataclass(types[field.name]):
            check_given(types[field.name], value, f"{name}.")
        elif value is None and NoneType not in get_args(types[field.name]):
            raise ConfigFileError(f"{name} is null, expected a value")


class ConfigFile(ActionConfigFile):
    """``--config FILE``: reads it in bounds, so that jsonargparse gets its text."""

    def __call__(
        self, parser: ArgumentParser, cfg: Any, values: Any, option_string: str | None = None
    ) -> None:
        """Take up the settings."""
        self.apply_config(parser, cfg, self.dest, read_config(values)[1])


def plain_arguments(arguments: Sequence[str]) -> list[str]:
    """The arguments of ``v2m train`` without names of code, and groups setting by setting.

    A group is a mapping or a YAML file: ``--optimizer '{lr: 0.1}'`` is ``--optimizer.lr=0.1``.

    Raises:
        ConfigFileError: an option or a group holds names of code, or a group is neither.
    """
    plain: list[str] = []
    left = list(arguments)
    while left:
        argument = left.pop(0)
        option, equals, value = argument.partition("=")
        if not option.startswith("--"):
            plain.append(argument)
            continue
        name = option.removeprefix("--")
        try:
            _check_name(name)
            if name not in GROUPS or not (equals or left):
                plain.append(argument)  # jsonargparse says what is wrong with a group without a value
                continue
            if not equals:
                value = left.pop(0)
            group = _read_group(value)
        except OSError as error:
            raise ConfigFileError(
                f"{name}: {value!r} is neither settings nor a file ({error.strerror})"
            ) from None
        except ValueError as error:
            raise ConfigFileError(f"{name}: {error}") from None
        plain += [f"{option}.{key}={_text(setting)}" for key, setting in group.items()]
    return plain


def _read_group(value: str) -> dict[str, Any]:
    """The settings of a group: written out, or else in a YAML file of that name."""
    try:
        found = parse_plain(value)
    except NoYamlError:
        found = value
    if not isinstance(found, dict):
        found = read_yaml(value)
    _check_names(found)
    return found


def _text(setting: Any) -> str:
    """A setting as an argument; what is no text in YAML, in one line."""
    if isinstance(setting, str):
        return setting
    return yaml.safe_dump(setting, default_flow_style=True, width=10**9).removesuffix("...\n").strip()
