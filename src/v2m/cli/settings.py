"""What the options of ``v2m train`` start from, which is known before they are parsed.

The parser needs it first: which options there are depends on the task, and their defaults on the recipe.
"""

from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from v2m.cli.plain import read_config
from v2m.engine.run_folder import RunFolder
from v2m.models.former_words import needs_weights
from v2m.recipes import starting_config
from v2m.recipes.photos import Given
from v2m.system.errors import DataError
from v2m.tasks import find_task
from v2m.tasks.config import TrainConfig
from v2m.tasks.model_folder import read_folder
from v2m.tasks.saved_config import CLASSIFICATION

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
    """What the user has given that the settings for a folder of images follow.

    A value of another type is left to the parser, whose error names it.
    """
    file = _option(arguments, "--config")
    written = _by_name(read_config(file)[0]) if file else {}
    found: dict[str, Any] = {}
    for name, option, kind in (
        ("model", "model", str),
        ("pretrained", "pretrained", str),
        ("img_size", "input.img_size", int),
        ("epochs", "epochs", int),
        ("batch_size", "batch_size", int),
        ("val_share", "val_share", float),
    ):
        value = _option(arguments, f"--{option}") or written.get(option)
        with suppress(TypeError, ValueError):
            if value in (None, "null"):
                continue
            parsed: Any = kind(value)
            if kind is str or parsed > 0:
                found[name] = parsed
    return Given(**found, allow_outside=_option(arguments, "--allow_outside") == "true")


def _by_name(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Settings of a configuration file by their dotted names."""
    found: dict[str, Any] = {}
    for name, value in values.items():
        found |= (
            _by_name(value, f"{prefix}{name}.") if isinstance(value, dict) else {f"{prefix}{name}": value}
        )
    return found


def find_start(arguments: Sequence[str]) -> TrainConfig:
    """The settings that ``v2m train`` starts from: those of the recipe, task or dataset in the arguments.

    Raises:
        ConfigFileError: they name a configuration file that cannot be read.
        ValueError: there is no such recipe or task, or the recipe is for another task.
    """
    if not arguments or arguments[0] != "train":
        return starting_config()
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
    resumed = _option(arguments, "--resume") if arguments[:1] == ["train"] else None
    if resumed is None:
        return arguments
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
    start = ["train", "--config", str(run.config), "--output", str(run.path)]
    return [*start, *_mixer_of_weights(run, written), *arguments[1:]]


def _mixer_of_weights(run: RunFolder, written: dict[str, Any]) -> list[str]:
    """The mixer of a run, where its configuration has a word of before that only the weights explain."""
    model, model_args = written.get("model"), written.get("model_args")
    if isinstance(model, str) and isinstance(model_args, dict) and needs_weights(model, model_args):
        with suppress(DataError):  # nothing was saved yet
            return ["--model_args.mixer", read_folder(run.path).saved.model_args["mixer"]]
    return []


def train_config(options: Any) -> TrainConfig:
    """The parsed options of ``v2m train`` as a configuration."""
    values = {k: v for k, v in vars(options).items() if k not in ("config", "recipe", "resume")}
    return find_task(options.task).config_type(**values)
