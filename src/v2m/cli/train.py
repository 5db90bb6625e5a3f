"""Train a classifier, a detector or a segmentation model.

Every setting is an option here, and may stand in a YAML file too. The settings start from those of the
recipe, or of the data set's own recipe, or from general ones.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from v2m.cli.options import Options, Parser, descriptions
from v2m.cli.plain import ConfigFile, ConfigFileError, check_given, plain_arguments
from v2m.cli.settings import find_start, resume_arguments
from v2m.cli.values import with_brackets
from v2m.recipes import FOLDER, starting_config
from v2m.tasks.config import TrainConfig, settings


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
        except ValueError as error:
            _add_options(parser, starting_config())  # whose names the message may have
            if isinstance(error, ConfigFileError):
                parser.error(str(error))
            raise
        _add_options(parser, start)
        # Last, since jsonargparse would print what it has when it reads a file.
        printing = [argument for argument in arguments if argument.startswith("--print_config")]
        arguments = [*(argument for argument in arguments if argument not in printing), *printing]
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
    parser.usage = f"{parser.prog} --data DATA [--OPTION VALUE ...]"  # all of them would fill a screen
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
    from v2m.cli.output import console, note_unchecked
    from v2m.cli.train_report import last_words, report
    from v2m.cli.views.view import find_view
    from v2m.engine import processes
    from v2m.engine.progress import print_line
    from v2m.engine.stopping import when_stopped
    from v2m.engine.train import train
    from v2m.recipes.photos import describe
    from v2m.recipes.run import draw_curve, title_of
    from v2m.tasks import find_task

    config = options.training
    # Training goes on without a reader of its output, such as after a closed terminal.
    out = console(is_needed=False)
    if processes.is_main():
        start = "training" if options.resume is None else f"resuming {options.resume}:"
        out.print(f"{start} {config.model} on {config.data}")
    task = find_task(config.task)
    if options.resume is None and processes.is_main():
        note_unchecked(console(stderr=True), *task.trained_models(config))
    if options.resume is None and not options.recipe and processes.is_main():
        for line in describe(config):
            print_line(out, line)
    result = train(
        config, out, resume=options.resume is not None, on_epoch=partial(draw_curve, config=config)
    )
    if not result.is_main:
        return 0
    out.print()
    find_view(task.name).print_scores(out, result.evaluation)
    with when_stopped(partial(last_words, result.run)):
        report(out, result, title_of(config))
    return 0
