"""Training from Python: a recipe or a configuration, with settings changed by name."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields, is_dataclass
from functools import partial
from os import PathLike, fspath
from pathlib import Path
from typing import Any, get_type_hints

from rich.console import Console

from v2m.engine import train as engine
from v2m.engine.processes import is_main
from v2m.engine.progress import print_line
from v2m.engine.run_folder import RunFolder
from v2m.pictures import plot_learning_curve
from v2m.recipes import FOLDER, starting_config
from v2m.recipes.photos import Given, describe
from v2m.system.names import nearest
from v2m.tasks import SavedModel, find_task
from v2m.tasks.config import TrainConfig, by_dotted_name
from v2m.tasks.trained import load
from v2m.tasks.typed import typed


@dataclass(frozen=True)
class TrainedRun:
    """A finished run, as ``v2m.train`` gives it.

    Attributes:
        folder: The run folder: weights, settings, metrics of every epoch, and ``best``.
        scores: The last scores on the validation images by name, such as ``top1``; shares are in 0..1.
        history: The rows of ``metrics.jsonl``, one for each epoch.
    """

    folder: Path
    scores: dict[str, float]
    history: list[dict[str, Any]]

    def load(self, device: str | None = None) -> SavedModel[Any]:
        """The trained model, as ``v2m.load`` gives it; that of the best epoch is in ``folder / "best"``."""
        return load(self.folder, device)


def train(
    config: TrainConfig | None = None, *, recipe: str | None = None, quiet: bool = False, **changed: Any
) -> TrainedRun:
    """Train a model, as ``v2m train`` does, and keep everything in its run folder.

    Args:
        config: The configuration of a run, of any task, such as ``ClassificationConfig``; by default the
            settings start from ``recipe``, or else from the recipe of the data set.
        recipe: Name of a recipe; see ``v2m recipes``.
        quiet: Whether to print nothing.
        **changed: Settings by the names of the command line's options, such as ``data="digits"``,
            ``epochs=2`` and ``optimizer=dict(lr=1e-3)``; ``**{"optimizer.lr": 1e-3}`` is the same.

    Returns:
        The run folder, the scores, and the model by ``load()``.

    Raises:
        ValueError: a setting or the data cannot be used.
        Interrupted: Ctrl-C; the run can be resumed by ``v2m train --resume``.
        NonFiniteLossError: losses or gradients stayed NaN or infinite.
    """
    config = configure(config, recipe, changed)
    console = Console(quiet=quiet, highlight=False, markup=False, emoji=False, soft_wrap=True)
    if recipe is None and is_main():
        for line in describe(config):
            print_line(console, line)
    result = engine.train(config, console, on_epoch=partial(draw_curve, config=config))
    return TrainedRun(result.run.path, result.evaluation.scores.metrics, result.run.read_metrics())


def title_of(config: TrainConfig) -> str:
    """What is trained on what: the title of a run's pictures."""
    return f"{config.model} on {Path(config.data).resolve().name}"


def draw_curve(run: RunFolder, config: TrainConfig) -> None:
    """Draw the learning curve of a run."""
    metrics = dict(find_task(config.task).val_metrics)
    plot_learning_curve(run.read_metrics(), run.learning_curve, title_of(config), metrics)


def configure(config: TrainConfig | None, recipe: str | None, changed: Mapping[str, Any]) -> TrainConfig:
    """The configuration of a run.

    Args:
        config: What it starts from; None for a recipe's settings, or the general ones.
        recipe: The recipe's name.
        changed: Settings that differ, by name; those of a group in a mapping, or by dotted names.

    Raises:
        ValueError: there is no such recipe or setting, or its value is of another type.
    """
    given = _nested(changed)
    if config is None:
        start = {name: _text(given, name) for name in ("task", "data")}
        config = starting_config(recipe, **start, given=Given.of(by_dotted_name(given)))
        if "data" not in given and config.data == FOLDER:
            raise ValueError("data: nothing is given, expected the name of a data set or a folder")
    elif recipe is not None:
        raise ValueError(f"recipe: {recipe!r} beside a configuration, expected one of them")
    kind = type(config)
    _check_names(kind, given)
    return typed(kind, _merged(config, given), largest=2**63)


def _text(given: Mapping[str, Any], name: str) -> str | None:
    value = given.get(name)
    return value if isinstance(value, str) else None


def _nested(changed: Mapping[str, Any]) -> dict[str, Any]:
    """Settings as plain data, those with dotted names in mappings, and paths as text."""
    found: dict[str, Any] = {}
    for name, value in changed.items():
        if is_dataclass(value) and not isinstance(value, type):
            value = {field.name: getattr(value, field.name) for field in fields(value)}
        group, dot, rest = name.partition(".") if isinstance(name, str) else (name, "", "")
        if dot:
            value = {rest: value}
        if isinstance(value, Mapping):
            inner = found.get(group)
            found[group] = (inner if isinstance(inner, dict) else {}) | _nested(value)
        else:
            found[group] = fspath(value) if isinstance(value, PathLike) else value
    return found


def _merged(config: Any, given: Mapping[str, Any]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for field in fields(config):
        value, new = getattr(config, field.name), given.get(field.name)
        if is_dataclass(value):
            values[field.name] = _merged(value, new if isinstance(new, Mapping) else {})
            if field.name in given and not isinstance(new, Mapping):
                values[field.name] = new  # which is refused by its type
        else:
            values[field.name] = given.get(field.name, value)
    return values


def _check_names(kind: type[Any], given: Mapping[str, Any], prefix: str = "") -> None:
    types = get_type_hints(kind)
    for name, value in given.items():
        if name not in types:
            near = nearest(name, types, most=2) or _groups_with(types, name)
            hint = f"; did you mean {' or '.join(prefix + other for other in near)}?" if near else ""
            raise ValueError(f"{prefix}{name} is no setting{hint}")
        if is_dataclass(types[name]) and isinstance(value, Mapping):
            _check_names(types[name], value, f"{prefix}{name}.")  # type: ignore[arg-type]


def _groups_with(types: Mapping[str, Any], name: str) -> Iterable[str]:
    """Settings of this name one level down, such as ``optimizer.lr``."""
    groups = {group: kind for group, kind in types.items() if is_dataclass(kind)}
    return [f"{group}.{name}" for group, kind in groups.items() if name in get_type_hints(kind)]
