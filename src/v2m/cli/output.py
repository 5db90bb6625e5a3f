"""Where and how commands print, and the files that they are given."""

import os
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from rich.console import Console
from rich.text import Text

from v2m.data.image_files import sort_images
from v2m.data.urls import ImageUrl, is_url
from v2m.system.errors import DataError, shown
from v2m.system.files import refuse_link
from v2m.system.names import safe_name
from v2m.system.tables import Column, Kind, TextTable
from v2m.tasks.names import CONFIG, LOCAL_DIR, WEIGHTS

if TYPE_CHECKING:
    import torch

    from v2m.engine.evaluate import Evaluation
    from v2m.tasks.model_folder import ModelFolder

ImageFile: TypeAlias = Path | ImageUrl
"""An image that a command is given: a file, or the address of one."""
PREDICTIONS = "predictions"
"""Where ``v2m predict`` writes, in the folder of the model, unless it is told."""
NAME_FOLDER = "name a folder by --output"
"""What to do where the folder of a model does not say where to write."""
AS_WIDE_AS_IT_IS = 10**6
"""Letters of a line where nobody looks at it: programs read rows of tables line by line."""


class _Output(Console):
    """A console for lines and tables with names that may be anything: what is no letter is shown, not sent.

    Its reader may go away: that ends a command which is there for its output.
    """

    is_needed = True

    def print(self, *objects: Any, **options: Any) -> None:
        """Print tables, or strings that are a line each: breaks within them are shown as what they are."""
        super().print(*(Text(shown(o)) if isinstance(o, str) else o for o in objects), **options)

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
    width = None if stream.isatty() else AS_WIDE_AS_IT_IS
    out = _Output(stderr=stderr, width=width, highlight=False, markup=False, emoji=False, soft_wrap=True)
    out.is_needed = is_needed
    return out


def note_unchecked(errors: Console, *models: str) -> None:
    """Tell of models that cannot be compared with what was saved: of timm, or of before there were sums.

    Args:
        errors: Where to.
        models: Folders, or the weights file in one; anything else is left alone.
    """
    from v2m.tasks.model_folder import read_folder

    for model in models:
        try:
            folder = read_folder(Path(model))
        except (DataError, OSError):
            continue  # which is told where it is loaded
        note_if_unchecked(errors, model, folder)


def note_if_unchecked(errors: Console, model: str, folder: "ModelFolder") -> None:
    """Tell that a model cannot be compared with what was saved, if that is so.

    Args:
        errors: Where to.
        model: The model as it was named.
        folder: Its folder.
    """
    from v2m.tasks.saved_config import SHA256

    if folder.saved.sha256 is None:
        errors.print(f'note: {model}: {CONFIG} has no "{SHA256}" of v2m, so its files are taken as they are')


def print_doing(out: Console, doing: str, folder: "ModelFolder", device: "torch.device", what: str) -> None:
    """Print what a command is about to do with a model, and which weights of its run these are.

    Args:
        out: Where to.
        doing: What is done.
        folder: The folder of the model.
        device: What computes.
        what: What it is done to.
    """
    from v2m.engine.device import describe_device
    from v2m.engine.run_folder import RunFolder
    from v2m.tasks import find_task

    out.print(f"{doing} {what} by {folder.saved.architecture} on {describe_device(device)}")
    metrics = [key for key, _ in find_task(folder.task).val_metrics]
    if weights := RunFolder.of_model(folder.path).describe_weights(folder.path, metrics):
        out.print(f"with {weights}")


def print_unreadable(out: Console, evaluation: "Evaluation") -> None:
    """Print how many images were left out of an evaluation, and the first of them, if any were."""
    if evaluation.unreadable:
        count, first = len(evaluation.unreadable), evaluation.unreadable[0]
        out.print(
            f"warning: {count} of {evaluation.scores.images + count:,} images cannot be "
            f"read and do not count, the first is {shown(first.name)} ({first.reason})"
        )


def number_table(name: str, *numbers: str, first_left_out: Sequence[str] = ()) -> TextTable:
    """A table of names and, to the right, numbers.

    Args:
        name: Heading of the names.
        numbers: Headings of the numbers.
        first_left_out: Which of them are left out first in a narrow terminal; others go from the right.
    """
    return TextTable(Column(name, Kind.NAME), *map(Column, numbers), first_left_out=first_left_out)


def find_inputs(arguments: Sequence[str]) -> tuple[list[ImageFile], list[str]]:
    """Images that are named or lie in folders, in order and each once, and what is wrong with others."""
    paths: dict[ImageFile, None] = {}
    failures = []
    for argument in arguments:
        if is_url(argument):
            paths[ImageUrl(argument)] = None
            continue
        try:
            images, others = sort_images(Path(argument))
            paths |= dict.fromkeys(images)
            failures += others
        except DataError as error:
            failures.append(str(error))
    files = [path for path in paths if isinstance(path, Path)]
    for path in [path for path in files if path.is_symlink() and not path.exists()]:
        del paths[path]
        failures.append(f"{shown(str(path))}: a link to {shown(os.readlink(path))}, which is not there")
    return list(paths), failures


def distinct_names(paths: Sequence[ImageFile]) -> dict[ImageFile, str]:
    """The name of each image, with as many of the folders that it is in as tell it from the others."""
    names: dict[ImageFile, str] = {}
    rest, parts = list(paths), 1
    while rest:
        ends = {path: Path(*path.parts[-parts:]).as_posix() for path in rest}
        count = Counter(ends.values())
        names |= {p: end for p, end in ends.items() if count[end] == 1 or parts >= len(p.parts)}
        rest, parts = [path for path in rest if path not in names], parts + 1
    return names


def renamed(image: ImageFile, picture: Path) -> str:
    """The name of a picture, to come after what is said of its image; nothing where the two are the same."""
    return "" if picture.stem == image.stem else f"  ({shown(picture.name)})"


def results_folder(model: str) -> Path:
    """Where results of a model go by default: its folder, or one in ``runs`` where it is not there yet.

    Args:
        model: The model as it was named.
    """
    path = Path(model.removeprefix(LOCAL_DIR))
    if not path.exists():
        return Path("runs") / safe_name(model)
    return path.parent if path.name == WEIGHTS else path


class PredictionFiles:
    """Files of predictions in a folder, which is made: none is written twice or is one of the inputs.

    Args:
        output: The folder; None for one in ``results_folder``.
        model: The model as it was named.
        inputs: Images that are read.

    Attributes:
        folder: Where the files are.
        names: ``distinct_names`` of the inputs.
    """

    def __init__(self, output: str | None, model: str, inputs: Sequence[ImageFile]) -> None:
        self.folder = Path(output or results_folder(model) / PREDICTIONS)
        if not output:
            refuse_link(self.folder, NAME_FOLDER)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.names = distinct_names(inputs)
        self._taken = {path.resolve() for path in inputs if isinstance(path, Path)}

    def take(self, image: ImageFile, *endings: str) -> list[Path]:
        """A file for each ending, by the name of an input, with a number where one of them is taken."""
        stem, number = safe_name(self.names[image].removesuffix(image.suffix).replace("/", "-")), 1
        while True:
            start = f"{stem}-{number}" if number > 1 else stem
            files = [self.folder / f"{start}{ending}" for ending in endings]
            if not self._taken.intersection(file.resolve() for file in files):
                self._taken.update(file.resolve() for file in files)
                return files
            number += 1
