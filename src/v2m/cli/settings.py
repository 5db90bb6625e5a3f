"""What the options of ``v2m train`` start from, which is known before they are parsed.

The parser needs it first: which options there are depends on the task, and their defaults on the recipe.
"""

from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from v2m.cli.plain import read_config
from v2m.recipes import starting_config
from v2m.recipes.photos import Given
from v2m.system.errors import DataError
from v2m.tasks.config import TrainConfig, by_dotted_name
from v2m.tasks.names import CLASSIFICATION

if TYPE_CHECKING:
    from v2m.engine.run_folder import RunFolder

AUTO = "auto"


def _option(arguments: Sequence[str], option: str) -> str | None:
    """The value of an option before it is parsed, the last where it is repeated; None if it is not there."""
    found = None
    for i, argument in enumerate(arguments):
        name, _, value = argument.partition("=")
        if name == option and (value or i + 1 < len(arguments)):
            found = value or arguments[i + 1]
    return found


def _setting(arguments: Sequence[str], name: str) -> str | None:
    """A setting of ``v2m train`` before it is parsed: its option, else what the configuration file says."""
    if value := _option(arguments, f"--{name}"):
        return value
    file = _option(arguments, "--config")
    written = read_config(file)[0].get(name) if file else None
    return written if isinstance(written, str) else None


def _given(arguments: Sequence[str]) -> Given:
    """What the user has given that the settings for a folder of images follow."""
    file = _option(arguments, "--config")
    found = by_dotted_name(read_config(file)[0]) if file else {}
    # An option counts more than the file, as in parsing.
    for argument in arguments:
        name = argument.partition("=")[0].removeprefix("--")
        if (value := _option(arguments, f"--{name}")) is not None:
            found[name] = value
    return Given.of(found)


def find_start(arguments: Sequence[str]) -> TrainConfig:
    """The settings that ``v2m train`` starts from: those of the recipe, task or dataset in the arguments.

    Raises:
        ConfigFileError: they name a configuration file that cannot be read.
        ValueError: there is no such recipe or task, or the recipe is for another task.
    """
    # A file that cannot be read is an error, also where options name all that is looked for in it.
    if file := _option(arguments, "--config"):
        read_config(file)
    return starting_config(
        recipe=_setting(arguments, "recipe"),
        task=_setting(arguments, "task"),
        data=_setting(arguments, "data"),
        given=_given(arguments),
    )


def _without(arguments: Sequence[str], option: str) -> list[str]:
    """The arguments without an option and its value."""
    kept = [argument for argument in arguments if not argument.startswith(f"{option}=")]
    if option in kept:
        del kept[kept.index(option) : kept.index(option) + 2]
    return kept


def resume_arguments(arguments: Sequence[str]) -> list[str]:
    """Put the configuration of the run to resume before the other settings of ``v2m train --resume RUN``.

    ``--resume auto`` is the run in ``--output`` if there is one to continue, else a new one.
    """
    arguments = list(arguments)
    resumed = _option(arguments, "--resume")
    if resumed is None:
        return arguments
    from v2m.engine.run_folder import RunFolder

    # Which run it is. What would contradict that run is refused.
    recipe = _option(arguments, "--recipe")
    if recipe and resumed != AUTO:
        raise ValueError(f"recipe: {recipe} with --resume, expected none: the run has all its settings")
    if resumed == AUTO:
        output = _option(arguments, "--output")
        if output is None:
            raise ValueError(f"resume: {AUTO} looks for a run in --output, which is not given")
        if not RunFolder(output).has_checkpoint:
            return _without(arguments, "--resume")
        resumed = output
    run = RunFolder(resumed)
    if not run.config.is_file():
        raise FileNotFoundError(f"resume: {run.path} is no run folder (it has no {run.config.name})")
    written = run.read_config()
    task, own = _option(arguments, "--task"), written.get("task", CLASSIFICATION)
    if task and task != own:
        raise ValueError(f"task: {task} with --resume {run.path}, which is a run for {own}")
    # Later options go before earlier ones, so the user's come after the run's.
    start = ["--config", str(run.config), "--output", str(run.path)]
    return [*start, *_mixer_of_weights(run, written), *arguments]


def _mixer_of_weights(run: "RunFolder", written: dict[str, Any]) -> list[str]:
    """The mixer of a run, where its configuration has a word of before that only the weights explain."""
    from v2m.models.former_words import needs_weights
    from v2m.tasks.model_folder import read_folder

    model, model_args = written.get("model"), written.get("model_args")
    if isinstance(model, str) and isinstance(model_args, dict) and needs_weights(model, model_args):
        with suppress(DataError):  # nothing was saved yet
            return ["--model_args.mixer", read_folder(run.path).saved.model_args["mixer"]]
    return []
