"""Score a model on a dataset: its task's metrics, a table per class, pictures."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, get_type_hints

from v2m.cli.options import (
    NO_ARGUMENT,
    DeviceOptions,
    ImageOptions,
    Parser,
    add_argument,
    add_arguments,
    built,
    descriptions,
    positional,
)
from v2m.system.files import refuse_link
from v2m.system.names import safe_name
from v2m.tasks import TASKS, find_task
from v2m.tasks.checks import check_least
from v2m.tasks.config import EvaluationOptions


@dataclass(frozen=True, kw_only=True)
class EvalOptions(ImageOptions, DeviceOptions):
    """Options of ``v2m eval``.

    Attributes:
        model: Run folder, or another in hub format; hf-hub:OWNER/NAME for one on the Hugging Face Hub.
        data: Dataset by name or folder; by default the run's own.
        batch_size: Images at once; by default 64, of a detector 8.
        workers: Processes that read images.
        output: Folder for the pictures; by default the model's, or runs/MODEL.
        of_tasks: Options that models for some task alone have, by name; None where one is not given.
    """

    model: str = positional()
    data: str | None = None
    batch_size: int | None = None
    workers: int = 0
    output: str | None = None
    of_tasks: Mapping[str, Any] = field(default_factory=dict, metadata=NO_ARGUMENT)

    def __post_init__(self) -> None:
        check_least(self, "", 1, "batch_size")
        check_least(self, "", 0, "workers")
        for name, value in self.of_tasks.items():
            for number in value if isinstance(value, list) else [value]:
                # Sizes may be 0, for none; factors may not.
                if isinstance(number, int) and number < 0:
                    raise ValueError(f"{name} is {number}, expected at least 0")
                if isinstance(number, float) and not number > 0:
                    raise ValueError(f"{name} is {number}, expected a positive number")

    @classmethod
    def parse(cls, parser: Parser, arguments: Sequence[str]) -> "EvalOptions":
        """Add the options, also those of the tasks, and parse.

        A field of ``options_type`` that several tasks have is one option, in the group of the first of them.
        """
        add_arguments(parser, cls)
        known: list[str] = []
        for name, task in TASKS.items():
            new = [item for item in fields(task.options_type) if item.name not in known]
            group = parser.add_argument_group(name.capitalize()) if new else parser
            help, types = descriptions(task.options_type), get_type_hints(task.options_type)
            for item in new:
                add_argument(group, item, types[item.name], "", help[item.name])
                known.append(item.name)
        found = parser.parse_plain(arguments)
        of_tasks = {name: found.pop(name) for name in known}
        return built(cls, parser, found, of_tasks=of_tasks)


def options_for(task: str, given: Mapping[str, Any]) -> EvaluationOptions:
    """The options of evaluation for a model of a task.

    Args:
        task: The task.
        given: Options of all tasks by name; None where one is not given.

    Raises:
        ValueError: an option of another task is given, or one cannot be used.
    """
    kind = TASKS[task].options_type
    own = {item.name for item in fields(kind)}
    for other, known in TASKS.items():
        for item in fields(known.options_type):
            if item.name not in own and given.get(item.name) is not None:
                raise ValueError(f"{item.name}: models for {other} alone have this option")
    values = {name: given.get(name) for name in own}
    return kind(**{name: tuple(v) if isinstance(v, list) else v for name, v in values.items()})


def run(options: EvalOptions) -> int:
    """Score a model on a dataset, and draw pictures: 1 if an image could not be read."""
    from rich.console import Console

    from v2m.cli.output import console, print_doing, print_unreadable
    from v2m.cli.trained import open_folder, own_data
    from v2m.cli.views.view import find_view
    from v2m.data.loading import EvalLoader
    from v2m.engine import parallel
    from v2m.engine.device import find_device
    from v2m.engine.evaluate import evaluate
    from v2m.engine.processes import is_main
    from v2m.engine.progress import track
    from v2m.engine.run_folder import RunFolder

    # What is evaluated, on what, and where results go. Errors of the options come before any work.
    out = console()
    folder = open_folder(options.model, console(stderr=True))
    source, device = options.data or own_data(folder.path), find_device(options.device)
    if is_main():
        print_doing(out, "scoring", folder, device, source)
    view, saved = find_view(folder.task), find_task(folder.task).load(folder)
    evaluator = saved.evaluator.with_options(options_for(folder.task, options.of_tasks))
    pictures = RunFolder(options.output or _eval_folder(options.model, options.data))

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
    for line in (*data.notes, *(f"warning: {line}" for line in data.warnings)):
        out.print(line)

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


def _eval_folder(model: str, data: str | None) -> Path:
    """The default folder for results: the run's own, or one in it that is named after other data."""
    from v2m.cli.output import NAME_FOLDER, results_folder

    folder = results_folder(model)
    if not data:
        return folder
    own = folder / safe_name(f"eval-{Path(data).resolve().name}")
    refuse_link(own, NAME_FOLDER)
    return own
