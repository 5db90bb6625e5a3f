"""What ``train``, ``eval`` and ``predict`` ask the view of a task, which is a module of this folder."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from rich.console import Console

from v2m.cli.output import ImageFile
from v2m.engine.evaluate import Evaluation
from v2m.tasks.saved_model import SavedModel

if TYPE_CHECKING:
    from v2m.cli.predict import PredictOptions


class PredictionView(ABC):
    """What ``v2m predict`` shows and writes of one model's predictions.

    Args:
        options: Options of ``v2m predict``.
        saved: The model.
        paths: All image files, in order.
        out: Where people read.

    Attributes:
        doing: What is done with an image, for the progress.
    """

    doing: ClassVar[str]

    @abstractmethod
    def __init__(
        self, options: "PredictOptions", saved: SavedModel[Any], paths: Sequence[ImageFile], out: Console
    ) -> None: ...

    @abstractmethod
    def add(self, path: ImageFile, image: Any, prediction: Any) -> None:
        """Show and write the prediction for a file, next in order.

        Args:
            path: The file.
            image: Its image, as the task's evaluator prepares it.
            prediction: What the evaluator predicts for it.
        """

    @abstractmethod
    def finish(self) -> None:
        """Show and write what concerns all files together."""


class View(Protocol):
    """What people see of one task. The module of that task in this folder has these names."""

    @property
    def FILES(self) -> Sequence[tuple[str, str]]:  # noqa: N802 - a constant of the module
        """Files of ``draw``, and what they are."""

    @property
    def Predictions(self) -> type[PredictionView]:  # noqa: N802 - a class of the module
        """What shows predictions."""

    def print_scores(self, out: Console, evaluation: Evaluation) -> None:
        """Print the scores in a line."""

    def print_classes(self, out: Console, scores: Any) -> None:
        """Print a table of the classes."""

    def draw(self, folder: Path, title: str, data: Any, evaluation: Evaluation) -> None:
        """Draw and write the files of ``FILES``.

        Args:
            folder: Where to.
            title: What was evaluated on what.
            data: The validation images.
            evaluation: What came out.
        """


def find_view(task: str) -> View:
    """What people see of a task."""
    from v2m.cli.views import classification, detection, segmentation

    views: dict[str, View] = dict(
        classification=classification, detection=detection, segmentation=segmentation
    )
    return views[task]
