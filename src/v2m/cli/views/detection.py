"""What people see of a detector: scores, pictures and predictions."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image
from rich.console import Console

from v2m.cli.output import ImageFile, PredictionFiles, number_table, renamed
from v2m.cli.predict import PredictOptions
from v2m.cli.views.view import PredictionView
from v2m.data.coco.dataset import CocoImages
from v2m.engine.evaluate import Evaluation
from v2m.pictures.objects import Drawn, plot_class_aps, plot_detections, plot_objects
from v2m.system.files import replace_file
from v2m.tasks.detection.evaluation import DetectionEvaluator
from v2m.tasks.detection.metrics import DetectionResults, DetectionScores, to_entries
from v2m.tasks.detection.model import Detections
from v2m.tasks.saved_model import SavedModel

PREDICTIONS, CLASSES, RESULTS = "predictions.png", "classes.png", "results.json"
FILES: tuple[tuple[str, str], ...] = (
    (PREDICTIONS, "images, their true objects and what was found"),
    (CLASSES, "AP of every class"),
    (RESULTS, "all that was found, in COCO's format of results"),
)
"""Files of ``draw``, and what they are."""
SHEET_IMAGES = 12
SHOWN_SCORE = 0.5
"""Least score of what is drawn on the sheet."""
LISTED_OBJECTS = 8


def print_scores(out: Console, evaluation: Evaluation) -> None:
    """Print the scores in a line."""
    found: DetectionScores = evaluation.scores
    metrics = found.metrics
    parts = [f"{kind} AP {metrics[f'{kind}_ap']:.1%}" for kind in ("box", "mask") if f"{kind}_ap" in metrics]
    main = "mask" if found.mask else "box"
    out.print(
        f"validation {'  '.join(parts)}  ({main} AP50 {metrics[f'{main}_ap50']:.1%}, "
        f"AP75 {metrics[f'{main}_ap75']:.1%}, {found.images:,} images)",
        style="bold",
    )


def print_classes(out: Console, scores: DetectionScores) -> None:
    """Print a table of the classes."""
    table = number_table("class", "objects", "box AP", *(["mask AP"] if scores.mask else []))
    for row in scores.classes:
        aps = [row.box_ap, row.mask_ap] if scores.mask else [row.box_ap]
        cells = ("-" if value is None else f"{value:.1%}" for value in aps)
        table.add_row(row.name, f"{row.objects:,}", *cells)
    out.print(table)


def draw(folder: Path, title: str, data: CocoImages, evaluation: Evaluation) -> None:
    """Draw a sheet of images with their objects, and the AP of every class, and write what was found."""
    scores: DetectionScores = evaluation.scores
    results: DetectionResults = evaluation.results
    kind, ap = ("mask", scores.metrics["mask_ap"]) if scores.mask else ("box", scores.metrics["box_ap"])
    heading = f"{title}: {kind} AP {ap:.1%} on {scores.images:,} images"
    step = -(-results.images // SHEET_IMAGES)
    images = []
    for number in range(0, results.images, step):
        place = results.places[number]
        objects = data.objects(place)
        captions = [
            f"{data.classes[label]} (crowd)" if crowd else data.classes[label]
            for label, crowd in zip(objects.labels.tolist(), objects.crowd.tolist(), strict=True)
        ]
        truth = Drawn(objects.boxes, objects.labels, captions, objects.masks)
        found = _drawn(results.detections(number), data.classes, SHOWN_SCORE)
        images.append((data.read(place), truth, found))
    plot_objects(images, folder / PREDICTIONS, heading)
    rows = [(row.name, row.box_ap, row.mask_ap) for row in scores.classes]
    plot_class_aps(rows, scores.mask is not None, folder / CLASSES, heading)
    _write_json(folder / RESULTS, results.entries())


class Predictions(PredictionView):
    """The objects in each file.

    For every image there is a picture with its objects, ``<stem>.png``, after its folders where others have
    that name, and with a number where a file has it still; and for all of them ``results.json``, every
    detection in COCO's format of results.
    """

    doing = "detecting"

    def __init__(
        self, options: PredictOptions, saved: SavedModel[Any], paths: Sequence[ImageFile], out: Console
    ) -> None:
        self._evaluator: DetectionEvaluator = saved.evaluator
        self._threshold, self._is_json, self._out = options.threshold, options.json, out
        self._files = PredictionFiles(options.output, options.model, paths)
        self._ids = _image_ids(paths)
        self._entries: list[dict[str, Any]] = []

    def add(self, path: ImageFile, image: Image.Image, prediction: Detections) -> None:
        """Draw what was found, and show it in a line."""
        classes = self._evaluator.classes
        (picture,) = self._files.take(path, ".png")
        drawn = _drawn(prediction, classes, self._threshold)
        plot_detections(image, drawn, picture)
        own = to_entries(prediction, self._ids[path], self._evaluator.category_ids)
        self._entries += [entry | dict(file_name=self._files.names[path]) for entry in own]
        if self._is_json:
            print(_json_line(path, picture, prediction, classes, self._threshold), flush=True)
        else:
            self._out.print(f"{path}  {_in_words(drawn.captions[::-1])}{renamed(path, picture)}")

    def finish(self) -> None:
        """Write all that was found."""
        _write_json(self._files.folder / RESULTS, self._entries)
        if not self._is_json:
            self._out.print(f"pictures and {RESULTS}: {self._files.folder}")


def _drawn(found: Detections, classes: Sequence[str], threshold: float) -> Drawn:
    """What was found with at least this score, best last, to be in front."""
    keep = (found.scores >= threshold).nonzero().flatten().flip(0)
    labels, scores = found.labels[keep], found.scores[keep]
    captions = [
        f"{classes[label]} {value:.0%}" for label, value in zip(labels.tolist(), scores.tolist(), strict=True)
    ]
    return Drawn(found.boxes[keep], labels, captions, None if found.masks is None else found.masks[keep])


def _in_words(captions: Sequence[str]) -> str:
    objects = f"{len(captions)} object" + ("" if len(captions) == 1 else "s")
    listed = [*captions[:LISTED_OBJECTS], *(["..."] if len(captions) > LISTED_OBJECTS else [])]
    return f"{objects}: {', '.join(listed)}" if listed else objects


def _json_line(
    path: ImageFile, picture: Path, found: Detections, classes: Sequence[str], threshold: float
) -> str:
    objects = [
        {"class": classes[label], "score": round(score, 6), "box": [round(edge, 2) for edge in box]}
        for box, label, score in zip(
            found.boxes.tolist(), found.labels.tolist(), found.scores.tolist(), strict=True
        )
        if score >= threshold
    ]
    return json.dumps({"image": str(path), "picture": str(picture), "objects": objects})


def _image_ids(paths: Sequence[ImageFile]) -> dict[ImageFile, int]:
    """COCO's ids of images: the numbers that are their names, or numbers from 1."""
    if all(path.stem.isdecimal() for path in paths):
        ids = {path: int(path.stem) for path in paths}
        if len(set(ids.values())) == len(paths):
            return ids
    return {path: number for number, path in enumerate(paths, 1)}


def _write_json(path: Path, entries: Sequence[dict[str, Any]]) -> None:
    def write(partial: Path) -> None:
        with partial.open("w") as file:
            json.dump(entries, file)

    replace_file(path, write)
