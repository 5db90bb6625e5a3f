"""What ``v2m train`` tells and draws at the end."""

import os
import re
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from v2m.cli.output import print_unreadable
from v2m.cli.views.view import find_view
from v2m.data.classes.division import SPLIT_FILE
from v2m.engine.run_folder import RunFolder, best_row
from v2m.engine.train import TrainResult
from v2m.system.names import shell_word
from v2m.tasks.names import CONFIG, WEIGHTS


def last_words(run: RunFolder) -> str:
    """What is said where Ctrl-C ends the report of a run."""
    return f"stopped; the run is complete, its pictures come by: v2m eval {shell_word(str(run.path))}"


def report(out: Console, result: TrainResult, title: str) -> None:
    """Say which weights are where, draw, and tell what can be done next."""
    run, task = result.run, type(result.task)
    view, metrics = find_view(task.name), [key for key, _ in task.val_metrics]
    rows = run.read_metrics()
    best = best_row(rows, metrics)
    has_other = run.best.is_dir() and best["epoch"] < rows[-1]["epoch"]
    scores = (f"{label} {best[f'val_{key}']:.2%}" for key, label in task.val_metrics if f"val_{key}" in best)
    others = f": validation {', '.join(scores)}" if has_other else ""
    out.print(f"of {run.describe_weights(run.path, metrics)}{others}")
    print_unreadable(out, result.evaluation)
    view.draw(run.path, title, result.task.val_data, result.evaluation)
    out.print()
    out.print(f"Everything is in {run.path}:")
    for name, meaning in (
        (WEIGHTS, f"weights, with {CONFIG}" + (" in timm's hub format" if task.is_timm_format else "")),
        (f"{run.best.name}/", "the same of the best epoch"),
        (run.config.name, "the resolved configuration"),
        (SPLIT_FILE, "which images were trained on, and which are validated on"),
        (run.metrics.name, "metrics of every epoch"),
        (run.unreadable.name, "images that could not be read"),
        (f"{run.checkpoints.name}/", "what v2m train --resume goes on from"),
        (run.learning_curve.name, "loss and scores over the epochs"),
        *view.FILES,
    ):
        if (run.path / name).exists():
            out.print(f"  {name:<24}{meaning}")
    out.print()
    _print_next_commands(out, [run.path, run.best] if has_other else [run.path], task.is_timm_format)


def _print_next_commands(out: Console, folders: Sequence[Path], is_timm_format: bool) -> None:
    """Print commands to paste into a shell as they are, for the folders with the run's weights."""
    out.print("Try next:")
    python = Path(sys.executable)
    script = python.with_name("v2m")  # which is not there where the package is only on the path of modules
    program = _called(script) if script.exists() else f"{_called(python)} -m v2m"
    for folder in folders:
        out.print(f"  {program} eval {shell_word(str(folder))}")
    out.print(f"  {program} predict {shell_word(str(folders[0]))} IMAGE_OR_FOLDER")
    if is_timm_format:
        load = f"import timm, v2m; timm.create_model({f'local-dir:{folders[0]}'!r}, pretrained=True)"
        quoted = shell_word(load) if re.search(r'["$`\\!]', load) else f'"{load}"'
        out.print(f"  {_called(python)} -c {quoted}")


def _called(program: Path) -> str:
    """How to call a program: by name where that is the one on the path, else by its place."""
    found = shutil.which(program.name)
    if found and Path(found) == program:
        return program.name
    is_below = program.is_relative_to(Path.cwd())
    return shell_word(os.path.relpath(program) if is_below else str(program))
