"""The tasks by name. Their settings are at hand; what else a task has is imported when it is asked for."""

from dataclasses import dataclass
from pkgutil import resolve_name
from typing import TYPE_CHECKING, Any

from v2m.system.names import nearest
from v2m.tasks.classification.config import ClassificationConfig
from v2m.tasks.config import EvaluationOptions, TrainConfig
from v2m.tasks.detection.config import DetectionConfig
from v2m.tasks.names import CLASSIFICATION, DETECTION, SEGMENTATION
from v2m.tasks.segmentation.config import SegmentationConfig, SegmentationOptions

if TYPE_CHECKING:
    from v2m.tasks.task import Task


@dataclass(frozen=True)
class KnownTask:
    """A task before it is imported.

    Attributes:
        config_type: The class of its configurations.
        place: Module and name of the task's class, as ``pkgutil.resolve_name`` takes them.
        options_type: The options of ``v2m eval`` that only this task has.
    """

    config_type: type[TrainConfig]
    place: str
    options_type: type[EvaluationOptions] = EvaluationOptions


TASKS = {
    CLASSIFICATION: KnownTask(ClassificationConfig, "v2m.tasks.classification.task:Classification"),
    DETECTION: KnownTask(DetectionConfig, "v2m.tasks.detection.task:Detection"),
    SEGMENTATION: KnownTask(
        SegmentationConfig, "v2m.tasks.segmentation.task:Segmentation", SegmentationOptions
    ),
}
"""The tasks by name."""


def find_known_task(name: str) -> KnownTask:
    """The types of the settings of a task. Nothing heavy is imported for them.

    Raises:
        ValueError: there is no such task.
    """
    if name not in TASKS:
        names = nearest(name, TASKS)
        remedy = f"did you mean {names[0]!r}?" if names else f"expected one of {', '.join(TASKS)}"
        raise ValueError(f"task: {name!r} is no task, {remedy}")
    return TASKS[name]


def find_task(name: str) -> "type[Task[Any]]":
    """The task of this name, which is imported.

    Raises:
        ValueError: there is none.
    """
    task: type[Task[Any]] = resolve_name(find_known_task(name).place)
    return task
