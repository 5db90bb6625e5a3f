"""What people see of a classifier: scores, pictures and predictions."""

import json
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Column, Table
from torch import Tensor

from v2m.cli.output import find_inputs, number_table
from v2m.engine.device import best_device
from v2m.engine.evaluate import Evaluation
from v2m.engine.progress import track
from v2m.engine.run_folder import RunFolder
from v2m.pictures import plot_confusion_matrix, plot_predictions
from v2m.system.errors import DataError, shown
from v2m.tasks.classification import ClassificationEvaluator
from v2m.tasks.classification.head import classify_files
from v2m.tasks.classification.metrics import Scores
from v2m.tasks.task import SavedModel

SHEET_IMAGES = 40

FILES = (
    ("confusion_matrix.png", "which class was taken for which"),
    ("predictions.png", "images and their predicted classes, the mistakes first"),
)
"""Files of ``draw``, and what they are."""


def print_scores(out: Console, evaluation: Evaluation) -> None:
    """Print the scores in a line."""
    scores: Scores = evaluation.scores
    top5 = f"top-5 {scores.top5:.2%}, " if len(scores.classes) > 5 else ""
    out.print(
        f"test accuracy {scores.top1:.2%}  ({top5}loss {scores.loss:.3f}, {scores.images:,} images)",
        style="bold",
    )


def print_classes(out: Console, scores: Scores) -> None:
    """Print a table of the classes."""
    table = number_table("class", "images", "precision", "recall", "F1")
    for row in scores.classes:
        shares = (row.precision, row.recall, row.f1)
        table.add_row(row.name, str(row.images), *(f"{v:.1%}" if row.images else "-" for v in shares))
    out.print(table)


def draw(folder: Path, title: str, data: Any, evaluation: Evaluation) -> None:
    """Draw the confusion matrix and a sheet of images.

    Args:
        folder: Where to.
        title: What was evaluated on what.
        data: The validation images.
        evaluation: What came out.
    """
    run, scores, found = RunFolder(folder), evaluation.scores, evaluation.results
    classes = [c.name for c in scores.classes]
    heading = f"{title}: {scores.top1:.1%} of {scores.images:,} images right"
    plot_confusion_matrix(scores.confusion, classes, run.confusion_matrix, heading)
    chosen = choose_images(found.logits, found.targets, SHEET_IMAGES)
    probabilities, predicted = found.logits[chosen].softmax(-1).max(-1)
    plot_predictions(
        [data.read(i) for i in found.indices[chosen].tolist()],
        [classes[i] for i in found.targets[chosen].tolist()],
        [classes[i] for i in predicted.tolist()],
        probabilities.tolist(),
        run.predictions,
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


def predict(options: Any, saved: SavedModel, out: Console, errors: Console) -> int:
    """Print the likeliest classes of image files: 1 if one cannot be read.

    Args:
        options: Parsed options of ``v2m predict``.
        saved: The classifier.
        out: Where predictions go.
        errors: Where progress and errors go.
    """
    evaluator = saved.evaluator
    assert isinstance(evaluator, ClassificationEvaluator)
    classes = evaluator.classes
    top = min(options.top, len(classes))
    paths, failures = find_inputs(options.images)
    table = Table(
        Column("image", overflow="fold"), *(f"{i + 1}." for i in range(top)), box=None, header_style="bold"
    )
    outcomes = classify_files(
        saved.model, evaluator.spec, paths, best_device(), options.batch_size or saved.evaluator.batch_size
    )
    for path, outcome in track(outcomes, "classifying: image", len(paths), errors):
        if isinstance(outcome, DataError):
            failures.append(str(outcome))
            continue
        values, indices = outcome.topk(top)
        best = [(classes[i], p) for i, p in zip(indices.tolist(), values.tolist(), strict=True)]
        cells = [shown(cell) for cell in (str(path), *(f"{name} {p:.1%}" for name, p in best))]
        if options.json:
            predictions = [{"class": name, "probability": round(p, 6)} for name, p in best]
            print(json.dumps({"image": str(path), "predictions": predictions}), flush=True)
        elif out.is_terminal:
            table.add_row(*cells)
        else:
            print("\t".join(cells), flush=True)
    if table.row_count:
        out.print(table)
    for failure in failures:
        errors.print(f"v2m: error: {failure}")
    return 1 if failures else 0
