"""Classify images, or find and draw what is in them.

Unreadable files are reported, the others still done.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from v2m.cli.options import DeviceOptions, flag, positional
from v2m.tasks.checks import check_least, check_shares

if TYPE_CHECKING:
    from rich.console import Console

    from v2m.cli.views.view import View
    from v2m.tasks import SavedModel

LONGEST_WHAT = 60
"""Letters of the images' names as they are told; a shell may give thousands."""


@dataclass(frozen=True, kw_only=True)
class PredictOptions(DeviceOptions):
    """Options of ``v2m predict``.

    Attributes:
        model: Run folder, or another in hub format; hf-hub:OWNER/NAME, or timm/NAME for timm's weights.
        images: Image files, or folders of them.
        top: Classes to show per image.
        threshold: Least score of objects to show.
        output: Folder for what is drawn; by default predictions in the model's.
        batch_size: Images at once; by default 64, of a detector 8.
        json: One JSON object per line instead of a table.
    """

    model: str = positional()
    images: tuple[str, ...] = positional()
    top: int = 3
    threshold: float = 0.5
    output: str | None = None
    batch_size: int | None = None
    json: bool = flag()

    def __post_init__(self) -> None:
        check_least(self, "", 1, "top", "batch_size")
        check_shares(self, "", "threshold")


def run(options: PredictOptions) -> int:
    """Apply a model to image files: 1 if one cannot be read."""
    from v2m.cli.output import console, print_doing
    from v2m.cli.trained import find_model
    from v2m.cli.views.view import find_view
    from v2m.engine.device import describe_device, find_device
    from v2m.system.names import shortened
    from v2m.tasks import find_task
    from v2m.tasks.saved_config import CLASSIFICATION
    from v2m.tasks.trained import load

    out, errors = console(), console(stderr=True)
    device = find_device(options.device)  # an error now, not once the model is loaded
    folder, what = find_model(options.model, errors), shortened(" ".join(options.images), LONGEST_WHAT)
    view = find_view(folder.task if folder else CLASSIFICATION)
    if folder:
        print_doing(errors, view.Predictions.doing, folder, device, what)
        saved = find_task(folder.task).load(folder)
    else:
        errors.print(f"{view.Predictions.doing} {what} by {options.model} on {describe_device(device)}")
        saved = load(options.model)
    return predict(options, saved, view, out, errors)


def predict(
    options: PredictOptions, saved: "SavedModel[Any]", view: "View", out: "Console", errors: "Console"
) -> int:
    """Apply a model that is already loaded to image files: 1 if one cannot be read."""
    from v2m.cli.output import find_inputs
    from v2m.engine.device import find_device
    from v2m.engine.progress import track
    from v2m.system.errors import DataError
    from v2m.tasks.evaluation import predict_images

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
