"""What people see of a classifier: scores, pictures and predictions."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from torch import Tensor

from v2m.cli.output import ImageFile, number_table
from v2m.cli.predict import PredictOptions
from v2m.cli.views.view import PredictionView
from v2m.engine.evaluate import Evaluation
from v2m.pictures import plot_confusion_matrix, plot_predictions
from v2m.system.errors import shown
from v2m.system.tables import Column, Kind, TextTable
from v2m.tasks.classification.metrics import ClassificationScores
from v2m.tasks.saved_model import SavedModel

SHEET_IMAGES = 40
CONFUSION, PREDICTIONS = "confusion_matrix.png", "predictions.png"
FILES = (
    (CONFUSION, "which class was taken for which"),
    (PREDICTIONS, "images and their predicted classes, the mistakes first"),
)
"""Files of ``draw``, and what they are."""


def print_scores(out: Console, evaluation: Evaluation) -> None:
    """Print the scores in a line."""
    scores: ClassificationScores = evaluation.scores
    top5 = f"top-5 {scores.top5:.2%}, " if len(scores.classes) > 5 else ""
    out.print(
        f"validation accuracy {scores.top1:.2%}  ({top5}loss {scores.loss:.3f}, {scores.images:,} images)",
        style="bold",
    )


def print_classes(out: Console, scores: ClassificationScores) -> None:
    """Print a table of the classes."""
    table = number_table("class", "images", "precision", "recall", "F1")
    for row in scores.classes:
        shares = (row.precision, row.recall, row.f1)
        table.add_row(row.name, str(row.images), *(f"{v:.1%}" if row.images else "-" for v in shares))
    out.print(table)


def draw(folder: Path, title: str, data: Any, evaluation: Evaluation) -> None:
    """Draw the confusion matrix and a sheet of images."""
    scores, found = evaluation.scores, evaluation.results
    classes = [c.name for c in scores.classes]
    heading = f"{title}: {scores.top1:.1%} of {scores.images:,} images right"
    plot_confusion_matrix(scores.confusion, classes, folder / CONFUSION, heading)
    chosen = choose_images(found.logits, found.targets, SHEET_IMAGES)
    probabilities, predicted = found.logits[chosen].softmax(-1).max(-1)
    plot_predictions(
        [data.read(i) for i in found.indices[chosen].tolist()],
        [classes[i] for i in found.targets[chosen].tolist()],
        [classes[i] for i in predicted.tolist()],
        probabilities.tolist(),
        folder / PREDICTIONS,
        heading,
    )


def choose_images(logits: Tensor, targets: Tensor, count: int) -> list[int]:
    """Indices of images worth showing: the surest mistakes first (at most half), then a random sample."""
    probabilities, predicted = logits.softmax(-1).max(-1)
    wrong = (predicted != targets).nonzero().flatten()
    mistakes = wrong[probabilities[wrong].argsort(descending=True)][: count // 2].tolist()
    order = torch.randperm(len(targets), generator=torch.Generator().manual_seed(0)).tolist()
    others = [i for i in order if predicted[i] == targets[i]]
    return mistakes + others[: count - len(mistakes)]


class Predictions(PredictionView):
    """The likeliest classes of each file: a table for people, else a line or a JSON object for each."""

    doing = "classifying"

    def __init__(
        self, options: PredictOptions, saved: SavedModel[Any], paths: Sequence[ImageFile], out: Console
    ) -> None:
        self._classes, self._is_json, self._out = saved.evaluator.classes, options.json, out
        self._top = min(options.top, len(self._classes))
        places = (Column(f"{i + 1}.", Kind.TEXT) for i in range(self._top))
        self._table = TextTable(Column("image", Kind.NAME), *places)

    def add(self, path: ImageFile, image: Tensor, prediction: Tensor) -> None:
        """Show the classes with the highest probabilities."""
        values, indices = prediction.topk(self._top)
        best = [(self._classes[i], p) for i, p in zip(indices.tolist(), values.tolist(), strict=True)]
        if self._is_json:
            predictions = [{"class": name, "probability": round(p, 6)} for name, p in best]
            print(json.dumps({"image": str(path), "predictions": predictions}), flush=True)
            return
        cells = [shown(cell) for cell in (str(path), *(f"{name} {p:.1%}" for name, p in best))]
        if self._out.is_terminal:
            self._table.add_row(*cells)
        else:
            print("\t".join(cells), flush=True)

    def finish(self) -> None:
        """Show the table."""
        if self._table.rows:
            self._out.print(self._table)
