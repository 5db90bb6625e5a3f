"""The commands of ``v2m``: what each of them is, and which there are.

A command is a module of this folder: its docstring is the help, of which the first line stands in the list of
commands, and ``run`` does it. The type of its options says which arguments it takes. A command with commands
of its own, such as ``v2m data``, is a folder.
"""

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol, TypeAlias, get_type_hints, runtime_checkable

from v2m.cli import bench, convert, data, embed, kernels, predict, probe, recipes, refine, study, train
from v2m.cli import eval as evaluate
from v2m.cli import list as list_models
from v2m.cli.mistakes import did_you_mean
from v2m.cli.options import Options
from v2m.system.names import nearest


class Command(Protocol):
    """The module of a command."""

    @property
    def run(self) -> Callable[..., int]:
        """Does it, and returns the exit code. Its one argument is ``options``, of a kind of ``Options``.

        Modules that take long to import are imported in here, so that help and errors come at once.
        """


@runtime_checkable
class CommandGroup(Protocol):
    """The folder of a command that has commands of its own."""

    @property
    def COMMANDS(self) -> Mapping[str, Command]:  # noqa: N802 - a constant of the folder
        """These, by name."""


AnyCommand: TypeAlias = Command | CommandGroup

LISTED: dict[str, dict[str, AnyCommand]] = {
    "Train a model and use it": {
        "train": train,
        "eval": evaluate,
        "predict": predict,
        "recipes": recipes,
        "list": list_models,
    },
    "Look at data and features": {"data": data, "embed": embed, "probe": probe},
    "Compare and measure": {"study": study, "refine": refine, "bench": bench},
    "Bring models and kernels here": {"convert": convert, "kernels": kernels},
}
"""The commands by name, under the headings of the help."""
COMMANDS: dict[str, AnyCommand] = {
    name: command for commands in LISTED.values() for name, command in commands.items()
}


class UnknownCommandError(ValueError):
    """There is no such command."""


def find_command(words: Sequence[str]) -> tuple[str, AnyCommand | None, list[str]]:
    """The command that arguments begin with.

    Returns:
        Its name as it is typed after ``v2m``, the command, and the other arguments; ``("", None, words)`` if
        they begin with an option.

    Raises:
        UnknownCommandError: they begin with something else.
    """
    name, known, found, left = "", COMMANDS, None, list(words)
    while known and left and not left[0].startswith("-"):
        word = left.pop(0)
        if word not in known:
            start = f"v2m {name}".strip()
            hint = did_you_mean([repr(near) for near in nearest(word, known)])
            raise UnknownCommandError(f"{start} has no command {word!r}{hint or f' (see {start} --help)'}")
        name, found = f"{name} {word}".strip(), known[word]
        known = dict(found.COMMANDS) if isinstance(found, CommandGroup) else {}
    return name, found, left


def description(command: object) -> str:
    """What a command is for."""
    return inspect.getdoc(command) or ""


def options_type(command: Command) -> type[Options]:
    """The options of a command."""
    kind: type[Options] = get_type_hints(command.run)["options"]
    return kind


def help_text(name: str, group: CommandGroup | None) -> str:
    """The help of ``v2m``, or of a command with commands of its own: a line for each."""
    start = f"v2m {name}".strip()
    listed = {"Commands": group.COMMANDS} if group else LISTED
    title = description(group) if group else "Visual 2-Dimensional Mamba: train, evaluate and apply models."
    lines = [f"usage: {start} COMMAND ...", "", title]
    for heading, commands in listed.items():
        lines += ["", f"{heading}:"]
        lines += [f"  {word:<11}{description(command).splitlines()[0]}" for word, command in commands.items()]
    lines += ["", f"{start} COMMAND --help tells more of one."]
    if not group:
        lines += ["v2m --version prints the version."]
    return "\n".join(lines)
