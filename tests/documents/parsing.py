"""Parse the commands of documents, by the parsers that run them."""

import contextlib
import io
import re

from tests.helpers import REPOSITORY
from v2m.cli.command import description, find_command, options_type
from v2m.cli.options import Parser

TARGET = re.compile(r"^([\w-]+):(?!=)", re.MULTILINE)
EXTRAS = re.compile(r"^(?:v2m|\.)(?:\[([\w,]+)\])?$")


class ParsingError(Exception):
    """A command of a document that would be refused."""


def v2m_arguments(words):
    """The arguments of ``v2m`` in the words of a command; None if it is another command."""
    if words[0].rpartition("/")[2] == "v2m":
        return words[1:]
    if "-m" in words and "v2m" in words:
        return words[words.index("v2m") + 1 :]
    return None


def parse(arguments):
    """Parse the arguments of ``v2m`` without running the command.

    Raises:
        ParsingError: they would be refused; the message is the parser's.
    """
    printed = io.StringIO()
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(printed):
            name, command, rest = find_command(arguments)
            options_type(command).parse(Parser(name, description(command)), rest)
    except (ValueError, OSError) as error:
        raise ParsingError(str(error)) from None
    except SystemExit as end:  # --help and --print_config end well
        if end.code:
            raise ParsingError(printed.getvalue().strip()) from None


def parse_command(words):
    """Parse a command of a document; those that are not of ``v2m`` are looked up.

    Raises:
        ParsingError: it would be refused, or there is no such target, extra or file.
    """
    arguments = v2m_arguments(words)
    if arguments is not None:
        parse(arguments)
        return
    program, *rest = words
    if program == "make":
        targets = TARGET.findall((REPOSITORY / "Makefile").read_text(encoding="utf-8"))
        _check([word for word in rest if "=" not in word], targets, "target of the Makefile")
    elif program == "pip":
        project = (REPOSITORY / "pyproject.toml").read_text(encoding="utf-8")
        extras = re.findall(r"^(\w+) = \[", project.partition("[project.optional-dependencies]")[2], re.M)
        given = [
            name for word in rest if (found := EXTRAS.match(word)) for name in (found[1] or "").split(",")
        ]
        _check(filter(None, given), extras, "extra")
    elif program in ("sudo", "sbatch"):
        scripts = [word for word in rest if word.endswith(".sh")]
        _check(scripts, [word for word in scripts if (REPOSITORY / word).is_file()], "script")
    elif program not in ("source", "export"):
        raise ParsingError(f"{program} is no program that documents are known to have")


def _check(given, known, kind):
    for name in given:
        if name not in known:
            raise ParsingError(f"{name} is no {kind}")
