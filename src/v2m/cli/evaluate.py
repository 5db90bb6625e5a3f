"""``v2m eval``: score a trained model on a dataset. Options that only one task has come from that task."""

import dataclasses
import inspect
from pathlib import Path
from types import NoneType
from typing import Any, get_args, get_origin, get_type_hints

import docstring_parser
from jsonargparse import ArgumentParser
from jsonargparse.typing import NonNegativeInt, PositiveFloat
from rich.console import Console

from v2m.cli.output import NAME_FOLDER, note_if_unchecked, print_doing, print_unreadable
from v2m.cli.views import View
from v2m.data.loading import EvalLoader
from v2m.engine import parallel
from v2m.engine.device import find_device
from v2m.engine.evaluate import evaluate
from v2m.engine.processes import is_main
from v2m.engine.progress import track
from v2m.engine.run_folder import RunFolder
from v2m.system.files import refuse_link
from v2m.system.names import safe_name
from v2m.tasks import TASKS, find_task
from v2m.tasks.evaluation import EvaluationOptions
from v2m.tasks.model_folder import read_folder

PARSED = {int: NonNegativeInt, float: PositiveFloat, bool: bool, str: str}
"""How the command line takes a number of each type: sizes and factors, none of them negative."""


def add_task_options(parser: ArgumentParser) -> None:
    """Add the options of evaluation that models of some task have, from the fields of its ``options_type``.

    A field that several tasks have is one option, in the group of the first of them.
    """
    known: set[str] = set()
    for name, task in TASKS.items():
        new = [field for field in dataclasses.fields(task.options_type) if field.name not in known]
        if not new:
            continue
        group = parser.add_argument_group(name.capitalize())
        doc = docstring_parser.parse(inspect.getdoc(task.options_type) or "")
        help = {described.arg_name: described.description for described in doc.params}
        types = get_type_hints(task.options_type)
        for field in new:
            known.add(field.name)
            group.add_argument(f"--{field.name}", help=help[field.name], **_parsed(types[field.name]))


def _parsed(kind: Any) -> dict[str, Any]:
    """How an option is parsed for a type such as ``int | None``; for a tuple it takes several values."""
    (given,) = (part for part in get_args(kind) if part is not NoneType)
    if get_origin(given) is tuple:
        return dict(type=PARSED[get_args(given)[0]], nargs="+")
    return dict(type=PARSED[given] | None)


def task_options(options: Any, name: str) -> EvaluationOptions:
    """The options of evaluation that were given for a model of a task.

    Args:
        options: Parsed options of ``v2m eval``.
        name: The task.

    Raises:
        ValueError: an option of another task is among them.
    """
    kind = find_task(name).options_type
    own = {field.name for field in dataclasses.fields(kind)}
    for other, task in TASKS.items():
        for field in dataclasses.fields(task.options_type):
            if field.name not in own and getattr(options, field.name) is not None:
                raise ValueError(f"{field.name}: models for {other} alone have this option")
    given = {option: getattr(options, option) for option in own}
    return kind(**{option: tuple(v) if isinstance(v, list) else v for option, v in given.items()})


def run(options: Any, views: dict[str, View], out: Console, errors: Console) -> int:
    """Score a model on a dataset, and draw pictures: 1 if an image could not be read.

    Args:
        options: Parsed options of ``v2m eval``.
        views: What people see of each task.
        out: Where tables go, in the main process.
        errors: Where notes go.
    """
    # What is evaluated, on what, and where results go. Errors of the options come before any work.
    folder = read_folder(Path(options.model))
    note_if_unchecked(errors, options.model, folder)
    source, device = options.data or own_data(folder.path), find_device(options.device)
    if is_main():
        print_doing(out, "scoring", folder, device, source)
    view, saved = views[folder.task], find_task(folder.task).load(folder)
    evaluator = saved.evaluator.with_options(task_options(options, folder.task))
    pictures = RunFolder(options.output or _eval_folder(folder.path, options.data))

    accelerator = parallel.start(options.device)
    # The first process of a machine downloads what is missing, the others wait and find it there.
    with accelerator.local_main_process_first():
        data = evaluator.open_data(source, Path(options.data_dir), allow_outside=options.allow_outside)
    out = out if accelerator.is_main_process else Console(quiet=True)
    batches = EvalLoader(
        data,
        options.batch_size or evaluator.batch_size,
        workers=options.workers,
        rank=accelerator.process_index,
        processes=accelerator.num_processes,
        collate=evaluator.collate,
    )
    for line in data.warnings:
        out.print(f"warning: {line}")

    # Every process evaluates its share; the main process shows what came out.
    with parallel.lost_processes(accelerator):
        watched = track(batches, "evaluating: batch", len(batches), out)
        model = saved.model.to(accelerator.device)
        found = evaluate(model, watched, evaluator.results(data), accelerator)
    accelerator.end_training()
    if not accelerator.is_main_process:
        return 0

    view.print_classes(out, found.scores)
    out.print()
    view.print_scores(out, found)
    print_unreadable(out, found)
    pictures.path.mkdir(parents=True, exist_ok=True)
    view.draw(pictures.path, f"{saved.name} on {Path(source).resolve().name}", data, found)
    pictures.write_unreadable(("val", *item) for item in found.unreadable)
    out.print("written: " + ", ".join(str(pictures.path / file) for file, _ in view.FILES))
    return 1 if found.unreadable else 0


def own_data(folder: Path) -> str:
    """What the run of a model was trained on.

    Raises:
        ValueError: the folder does not say.
    """
    run = RunFolder.of_model(folder)
    if not run.config.is_file():
        raise ValueError(f"data: {folder} does not say what it was trained on, name a dataset with --data")
    return run.read_config()["data"]


def _eval_folder(folder: Path, data: str | None) -> Path:
    """The default folder for results: the run's own, or one in it that is named after other data."""
    if not data:
        return folder
    own = folder / safe_name(f"eval-{Path(data).resolve().name}")
    refuse_link(own, NAME_FOLDER)
    return own
