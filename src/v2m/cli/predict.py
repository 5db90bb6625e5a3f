"""``v2m predict``: apply a model to image files."""

from pathlib import Path
from typing import Any

from rich.console import Console

from v2m.cli.output import find_inputs, note_if_unchecked, print_doing
from v2m.cli.views import View
from v2m.engine.device import find_device
from v2m.engine.progress import track
from v2m.system.errors import DataError
from v2m.system.names import shortened
from v2m.tasks import SavedModel, find_task
from v2m.tasks.evaluation import predict_images
from v2m.tasks.model_folder import read_folder

LONGEST_WHAT = 60
"""Letters of the images' names as they are told; a shell may give thousands."""


def run(options: Any, views: dict[str, View], out: Console, errors: Console) -> int:
    """Apply a model to image files: 1 if one cannot be read.

    Args:
        options: Parsed options of ``v2m predict``.
        views: What people see of each task.
        out: Where predictions go.
        errors: Where progress and errors go.
    """
    device = find_device(options.device)  # an error now, not once the model is loaded
    folder = read_folder(Path(options.model))
    note_if_unchecked(errors, options.model, folder)
    view = views[folder.task]
    print_doing(
        errors, view.Predictions.doing, folder, device, shortened(" ".join(options.images), LONGEST_WHAT)
    )
    saved = find_task(folder.task).load(folder)
    return predict(options, saved, view, out, errors)


def predict(options: Any, saved: SavedModel[Any], view: View, out: Console, errors: Console) -> int:
    """Apply a model that is already loaded to image files: 1 if one cannot be read."""
    paths, failures = find_inputs(options.images)
    predictions = view.Predictions(options, saved, paths, out)
    batch_size = options.batch_size or saved.evaluator.batch_size
    outcomes = predict_images(saved.model, saved.evaluator, paths, find_device(options.device), batch_size)
    for path, outcome in track(outcomes, f"{predictions.doing}: image", len(paths), errors):
        if isinstance(outcome, DataError):
            failures.append(str(outcome))
        else:
            predictions.add(path, *outcome)
    predictions.finish()
    # Failures come last, where a long list of predictions does not hide them.
    for failure in failures:
        errors.print(f"v2m: error: {failure}")
    return 1 if failures else 0
