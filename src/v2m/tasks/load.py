"""Load a trained model, whatever its task is."""

from pathlib import Path
from typing import Any

from v2m.tasks.model_folder import read_folder
from v2m.tasks.registry import find_task
from v2m.tasks.saved_model import SavedModel


def load_model(path: Path) -> SavedModel[Any]:
    """The trained model in a run folder, or another in hub format, whatever its task is.

    Args:
        path: The folder, or the weights file in it.

    Raises:
        DataError: there is no model, or its weights do not fit.
        ValueError: there is no such task, or a package that it needs is missing.
    """
    folder = read_folder(path)
    return find_task(folder.task).load(folder)
