"""What models are trained for. Every task is a folder with the same files."""

from typing import TYPE_CHECKING

from v2m.system.imports import lazy_names

if TYPE_CHECKING:
    from v2m.tasks.load import load_model
    from v2m.tasks.registry import TASKS, KnownTask, find_known_task, find_task
    from v2m.tasks.saved_model import SavedModel
    from v2m.tasks.task import Task
else:
    __getattr__, __dir__ = lazy_names(
        __name__,
        {
            "v2m.tasks.load": ["load_model"],
            "v2m.tasks.registry": ["TASKS", "KnownTask", "find_known_task", "find_task"],
            "v2m.tasks.saved_model": ["SavedModel"],
            "v2m.tasks.task": ["Task"],
        },
    )

__all__ = ["TASKS", "KnownTask", "SavedModel", "Task", "find_known_task", "find_task", "load_model"]
