"""What models are trained for: every task has the files config, data, head, loss and metrics."""

from typing import Any

from v2m.tasks.classification import Classification
from v2m.tasks.detection import Detection
from v2m.tasks.segmentation import Segmentation
from v2m.tasks.task import Task

TASKS: dict[str, type[Task[Any]]] = {
    "classification": Classification,
    "detection": Detection,
    "segmentation": Segmentation,
}
"""The tasks by name."""


def find_task(name: str) -> type[Task[Any]]:
    """The task of this name.

    Raises:
        ValueError: there is none.
    """
    if name not in TASKS:
        raise ValueError(f"task: {name!r} is no task, expected one of {', '.join(TASKS)}")
    return TASKS[name]


__all__ = ["TASKS", "Task", "find_task"]
