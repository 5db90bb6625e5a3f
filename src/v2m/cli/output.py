"""Where and how commands print, and the files that they are given."""

import os
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from v2m.data import DataError, find_images


class _Output(Console):
    """A console whose reader may go away: that ends a command which is there for its output."""

    is_needed = True

    def on_broken_pipe(self) -> None:
        """What rich calls then; it would exit with 1."""
        if self.is_needed:
            raise BrokenPipeError
        self.quiet = True
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def console(stderr: bool = False, is_needed: bool = True) -> Console:
    """Where to print: text as it is, in lines as long as they are where nobody looks at them.

    Args:
        stderr: On standard error.
        is_needed: Whether a command ends where nobody reads its output any more.
    """
    stream = sys.stderr if stderr else sys.stdout
    width = None if stream.isatty() else 200
    out = _Output(stderr=stderr, width=width, highlight=False, markup=False, soft_wrap=True)
    out.is_needed = is_needed
    return out


def number_table(*columns: str) -> Table:
    """A table of names and, to the right, numbers."""
    table = Table(*columns, box=None, header_style="bold")
    for column in table.columns[1:]:
        column.justify = "right"
    return table


def find_inputs(arguments: Sequence[str]) -> tuple[list[Path], list[str]]:
    """Image files that are named or lie in folders, in order and each once, and what is wrong with others."""
    paths: dict[Path, None] = {}
    failures = []
    for argument in arguments:
        try:
            paths |= dict.fromkeys(find_images(Path(argument)))
        except DataError as error:
            failures.append(str(error))
    return list(paths), failures
