"""Where and how commands print, and the files that they are given."""

import os
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from v2m.data import DataError, find_images
from v2m.data.image_files import tell_other_images, walk_files
from v2m.tasks.hub import WEIGHTS

PREDICTIONS = "predictions"
"""Where ``v2m predict`` writes, in the folder of the model, unless it is told."""


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
            if os.path.isdir(argument):
                failures += tell_other_images(argument, walk_files(argument))
        except DataError as error:
            failures.append(str(error))
    return list(paths), failures


class PredictionFiles:
    """Files of predictions in a folder, which is made: none is written twice or is one of the inputs.

    Args:
        output: The folder; None for one beside the model.
        model: The model's folder, or the weights file in one.
        inputs: Images that are read.

    Attributes:
        folder: Where the files are.
    """

    def __init__(self, output: str | None, model: str, inputs: Sequence[Path]) -> None:
        path = Path(model)
        self.folder = Path(output or (path.parent if path.name == WEIGHTS else path) / PREDICTIONS)
        self.folder.mkdir(parents=True, exist_ok=True)
        self._taken = {path.resolve() for path in inputs}

    def take(self, stem: str, *endings: str) -> list[Path]:
        """A file for each ending, with a number after the stem where one of them is taken."""
        number = 1
        while True:
            start = f"{stem}-{number}" if number > 1 else stem
            files = [self.folder / f"{start}{ending}" for ending in endings]
            if not self._taken.intersection(file.resolve() for file in files):
                self._taken.update(file.resolve() for file in files)
                return files
            number += 1
