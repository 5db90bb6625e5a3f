"""What models are trained for. Every task is a folder with the same files."""

from pathlib import Path
from typing import Any

from v2m.tasks.classification import Classification
from v2m.tasks.detection import Detection
from v2m.tasks.model_folder import read_folder
from v2m.tasks.saved_model import SavedModel
from v2m.tasks.segmentation import Segmentation
from v2m.tasks.task import Task

TASKS: dict[str, type[Task[Any]]] = {task.name: task for task in (Classification, Detection, Segmentation)}
"""The tasks by name."""


def find_task(name: str) -> type[Task[Any]]:
    """The task of this name.

    Raises:
        ValueError: there is none.
    """
    if name not in TASKS:
        raise ValueError(f"task: {name!r} is no task, expected one of {', '.join(TASKS)}")
    return TASKS[name]


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


__all__ = ["TASKS", "SavedModel", "Task", "find_task", "load_model"]
