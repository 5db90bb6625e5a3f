"""What people see of a segmentation model: scores, pictures and predictions."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from rich.console import Console
from torch import Tensor

from v2m.cli.output import ImageFile, PredictionFiles, number_table, renamed
from v2m.cli.predict import PredictOptions
from v2m.cli.views.view import PredictionView
from v2m.data.masks.dataset import MaskedImages
from v2m.engine.evaluate import Evaluation
from v2m.pictures.colours import palette
from v2m.pictures.segments import Segmented, plot_class_ious, plot_overlay, plot_segments
from v2m.system.errors import shown
from v2m.system.files import replace_file
from v2m.tasks.saved_model import SavedModel
from v2m.tasks.segmentation.metrics import SegmentationScores

PREDICTIONS, CLASSES = "predictions.png", "classes.png"
FILES = (
    (PREDICTIONS, "images, their true and their predicted labels"),
    (CLASSES, "IoU of every class"),
)
"""Files of ``draw``, and what they are."""
LARGEST_CLASSES = 5


def print_scores(out: Console, evaluation: Evaluation) -> None:
    """Print the scores in a line."""
    scores: SegmentationScores = evaluation.scores
    seen = sum(row.iou is not None for row in scores.classes)
    which = "" if seen == len(scores.classes) else f" of {seen} of {len(scores.classes)} classes"
    out.print(
        f"validation mIoU {scores.miou:.2%}{which}  (accuracy {scores.pixel_accuracy:.2%}, class accuracy "
        f"{scores.class_accuracy:.2%}, loss {scores.loss:.3f}, {scores.images:,} images)",
        style="bold",
    )


def print_classes(out: Console, scores: SegmentationScores) -> None:
    """Print a table of the classes."""
    table = number_table("class", "pixels", "IoU", "accuracy")
    for row in scores.classes:
        shares = ("-" if value is None else f"{value:.1%}" for value in (row.iou, row.accuracy))
        table.add_row(row.name, f"{row.pixels:,}", *shares)
    out.print(table)


def draw(folder: Path, title: str, data: MaskedImages, evaluation: Evaluation) -> None:
    """Draw a sheet of images with their labels, and the IoU of every class."""
    scores: SegmentationScores = evaluation.scores
    heading = f"{title}: mIoU {scores.miou:.1%} on {scores.images:,} images"
    items = []
    for index, predicted in evaluation.results.shown.items():
        image, truth = data.read(index)
        items.append(Segmented(image, truth.numpy(), predicted.numpy()))
    plot_segments(items, data.classes, folder / PREDICTIONS, heading)
    plot_class_ious([(row.name, row.iou) for row in scores.classes], scores.miou, folder / CLASSES, heading)


class Predictions(PredictionView):
    """The labels of each file's pixels.

    For every image there is a picture of the labels over it, ``<stem>.png``, and the labels themselves as
    places in a palette, ``<stem>_labels.png``; the folders come before where others have that name, and a
    number after it where a file has it still.
    """

    doing = "segmenting"

    def __init__(
        self, options: PredictOptions, saved: SavedModel[Any], paths: Sequence[ImageFile], out: Console
    ) -> None:
        self._classes, self._is_json, self._out = saved.evaluator.classes, options.json, out
        self._files = PredictionFiles(options.output, options.model, paths)

    def add(self, path: ImageFile, image: Image.Image, prediction: Tensor) -> None:
        """Draw the labels, and show the largest classes in a line."""
        classes = self._classes
        picture, label_map = self._files.take(path, ".png", "_labels.png")
        plot_overlay(image, prediction.numpy(), classes, picture)
        write_labels(prediction, len(classes), label_map)
        shares = prediction.flatten().bincount(minlength=len(classes)) / prediction.numel()
        largest = [i for i in shares.argsort(descending=True).tolist() if shares[i]]
        best = [(classes[i], shares[i].item()) for i in largest]
        if self._is_json:
            found = [{"class": name, "share": round(share, 6)} for name, share in best]
            written = dict(picture=str(picture), labels=str(label_map))
            print(json.dumps({"image": str(path), **written, "classes": found}), flush=True)
            return
        cells = (f"{name} {share:.1%}" for name, share in best[:LARGEST_CLASSES])
        line = "\t".join(map(shown, [str(path), *cells])) + renamed(path, picture)
        if self._out.is_terminal:
            self._out.print(line.expandtabs())
        else:
            print(line, flush=True)

    def finish(self) -> None:
        """Say where the pictures are."""
        if not self._is_json:
            self._out.print(f"pictures and labels: {self._files.folder}")


def write_labels(labels: Tensor, classes: int, path: Path) -> None:
    """Write labels ``[H, W]`` as a PNG: places in the palette of pictures, or 16 bits of gray if need be."""
    if classes <= 2**8:
        image = Image.fromarray(labels.to(torch.uint8).numpy())
        image.putpalette(palette(classes).tobytes())
    else:
        image = Image.fromarray(labels.numpy().astype(np.uint16))
    replace_file(path, lambda partial: image.save(partial, format="PNG"))
