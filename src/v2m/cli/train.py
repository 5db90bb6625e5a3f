"""Train a classifier, a detector or a segmentation model.

Every setting is an option here, and may stand in a YAML file too. The settings start from those of the
recipe, or of the data set's own recipe, or from general ones.
"""

import os
import re
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from v2m.cli.options import Options, Parser, descriptions
from v2m.cli.plain import ConfigFile, ConfigFileError, check_given, plain_arguments
from v2m.cli.settings import find_start, resume_arguments
from v2m.cli.values import with_brackets
from v2m.recipes import FOLDER, starting_config
from v2m.system.names import shell_word
from v2m.tasks.config import TrainConfig, settings

if TYPE_CHECKING:
    from rich.console import Console

    from v2m.engine.run_folder import RunFolder


@dataclass(frozen=True, kw_only=True)
class TrainOptions(Options):
    """Options of ``v2m train``.

    Attributes:
        training: The configuration of the run; each setting of it is an option.
        config: YAML file with any of these settings.
        recipe: Where the settings start from; see v2m recipes.
        resume: Continue the run in this folder; auto is the one in --output if it is there, else a new one.
    """

    training: TrainConfig
    config: str | None = None
    recipe: str | None = None
    resume: str | None = None

    @classmethod
    def parse(cls, parser: Parser, arguments: Sequence[str]) -> "TrainOptions":
        """Add the options of the task that the arguments name, with the defaults of their recipe, and parse.

        Raises:
            ValueError: there is no such recipe, task or run, or a setting cannot be used.
        """
        # Which options there are, and their defaults, must be known before the arguments are parsed.
        try:
            arguments = resume_arguments(arguments)
            start = find_start(arguments)
        except ConfigFileError as error:
            parser.error(f"{error}")
        except ValueError:
            _add_options(parser, starting_config())  # whose names the message may have
            raise
        _add_options(parser, start)
        try:
            arguments = plain_arguments(with_brackets(arguments, type(start)))
            found = parser.parse_plain(arguments)
            check_given(type(start), found)
        except ConfigFileError as error:
            parser.error(str(error))
        values = dict(vars(parser.instantiate(found)))
        own = {name: values.pop(name) for name in ("recipe", "resume")}
        del values["config"]
        return cls(training=type(start)(**values), **own)


def _add_options(parser: Parser, start: TrainConfig) -> None:
    help = descriptions(TrainOptions)
    parser.add_argument("--config", action=ConfigFile, help=help["config"])
    parser.add_argument("--recipe", type=str | None, metavar="NAME", help=help["recipe"])
    parser.add_class_arguments(type(start), None)
    parser.add_argument("--resume", type=str | None, metavar="RUN", help=help["resume"])
    defaults = settings(start)
    if start.data == FOLDER:
        del defaults["data"]  # the user has to give it
    else:
        parser._option_string_actions["--data"].required = False  # the recipe has it
    parser.set_defaults(defaults)


def run(options: TrainOptions) -> int:
    """Train, and tell what came out and where it is."""
    from v2m.cli.output import console, note_unchecked, print_unreadable
    from v2m.cli.views.view import find_view
    from v2m.engine import processes
    from v2m.engine.train import train
    from v2m.pictures import plot_learning_curve
    from v2m.tasks import find_task
    from v2m.tasks.model_folder import CONFIG, WEIGHTS

    config = options.training
    task, view = find_task(config.task), find_view(config.task)
    title = f"{config.model} on {Path(config.data).resolve().name}"
    if options.resume is None and processes.is_main():
        note_unchecked(console(stderr=True), *task.trained_models(config))

    def draw_curve(run: "RunFolder") -> None:
        plot_learning_curve(run.read_metrics(), run.learning_curve, title, dict(task.val_metrics))

    # Training goes on without a reader of its output, such as after a closed terminal.
    out = console(is_needed=False)
    result = train(config, out, resume=options.resume is not None, on_epoch=draw_curve)
    if not result.is_main:
        return 0
    run = result.run
    out.print()
    view.print_scores(out, result.evaluation)
    print_unreadable(out, result.evaluation)
    view.draw(run.path, title, result.task.val_data, result.evaluation)
    out.print()
    out.print(f"Everything is in {run.path}:")
    for name, meaning in (
        (WEIGHTS, f"weights, with {CONFIG}" + (" in timm's hub format" if task.is_timm_format else "")),
        (f"{run.best.name}/", "the same of the best epoch"),
        (run.config.name, "the resolved configuration"),
        (run.metrics.name, "metrics of every epoch"),
        (run.unreadable.name, "images that could not be read"),
        (f"{run.checkpoints.name}/", "what v2m train --resume goes on from"),
        (run.learning_curve.name, "loss and scores over the epochs"),
        *view.FILES,
    ):
        if (run.path / name).exists():
            out.print(f"  {name:<24}{meaning}")
    out.print()
    _print_next_commands(run.path, task.is_timm_format, out)
    return 0


def _print_next_commands(path: Path, is_timm_format: bool, out: "Console") -> None:
    """Print commands to paste into a shell as they are."""
    out.print("Try next:")
    out.print(f"  {_program('v2m')} eval {shell_word(str(path))}")
    out.print(f"  {_program('v2m')} predict {shell_word(str(path))} IMAGE_OR_FOLDER")
    if is_timm_format:
        load = f"import timm, v2m; timm.create_model({f'local-dir:{path}'!r}, pretrained=True)"
        quoted = shell_word(load) if re.search(r'["$`\\!]', load) else f'"{load}"'
        out.print(f"  {_program('python')} -c {quoted}")


def _program(name: str) -> str:
    """How to call a program of this environment: by name where it is on the path, else by its place."""
    beside = Path(sys.executable).with_name(name)
    found = shutil.which(name)
    return name if found and Path(found) == beside else os.path.relpath(beside)
