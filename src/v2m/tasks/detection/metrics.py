"""Scores of a detector: COCO's, by torchmetrics with faster-coco-eval."""

import math
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from v2m.data.coco.dataset import CocoImages
from v2m.data.loading import Batch
from v2m.system.extras import how_to_install, missing
from v2m.tasks.detection.model import Detections, Detector, detect
from v2m.tasks.evaluation import Autocast, Results

if TYPE_CHECKING:
    from torchmetrics.detection import MeanAveragePrecision

Entry = dict[str, Any]

COCO_EVAL = "faster_coco_eval"
NAMES = (
    *("map", "map_50", "map_75", "map_small", "map_medium", "map_large"),
    *("mar_1", "mar_10", "mar_100", "mar_small", "mar_medium", "mar_large"),
)
"""torchmetrics' names of the twelve numbers."""


@dataclass(frozen=True)
class APScores:
    """COCO's twelve numbers, in its order: shares in 0..1, or -1 where there are no such objects.

    Attributes:
        ap: Average precision over the overlaps 0.5 to 0.95.
        ap50: At an overlap of 0.5.
        ap75: At an overlap of 0.75.
        ap_small: Of objects of less than 32x32 pixels.
        ap_medium: Of those up to 96x96 pixels.
        ap_large: Of larger ones.
        ar1: Average recall of the best detection of an image.
        ar10: Of the best 10.
        ar100: Of the best 100.
        ar_small: Of those, for small objects.
        ar_medium: For medium ones.
        ar_large: For large ones.
    """

    ap: float
    ap50: float
    ap75: float
    ap_small: float
    ap_medium: float
    ap_large: float
    ar1: float
    ar10: float
    ar100: float
    ar_small: float
    ar_medium: float
    ar_large: float


@dataclass(frozen=True)
class ClassScores:
    """Scores of one class: its objects, and average precisions in 0..1, None where it has no objects."""

    name: str
    objects: int
    box_ap: float | None
    mask_ap: float | None


@dataclass(frozen=True)
class DetectionScores:
    """Scores over a dataset.

    Attributes:
        images: Number of images.
        box: Scores of the boxes.
        mask: Scores of the masks, if the detector has masks.
        classes: Scores of every class.
        is_finite: Whether no weight or score of the model is infinite or NaN.
    """

    images: int
    box: APScores
    mask: APScores | None
    classes: list[ClassScores]
    is_finite: bool = True

    @property
    def metrics(self) -> dict[str, float]:
        """The numbers for ``metrics.jsonl``; 0 where there is nothing to find."""
        kinds = [("box", self.box)] + ([("mask", self.mask)] if self.mask else [])
        return {
            f"{kind}_{name}": max(0.0, getattr(scores, name)) if self.is_finite else math.nan
            for kind, scores in kinds
            for name in ("ap", "ap50", "ap75")
        }


class DetectionState(NamedTuple):
    """What one process adds: places of its images, lists of the metric, and whether all values are finite."""

    places: list[int]
    lists: dict[str, list[Any]]
    is_finite: bool


class DetectionResults(Results):
    """Detections in images, and their objects; masks are kept as runs.

    Args:
        data: The images.
        has_masks: Whether the detector has masks.

    Attributes:
        places: Places of the images in the dataset.
    """

    def __init__(self, data: CocoImages, has_masks: bool) -> None:
        self._data, self._has_masks = data, has_masks
        self._metric = new_metric(has_masks)
        self._annotations = annotations(data)
        self._is_finite = True
        self.places: list[int] = []

    def add(self, model: nn.Module, batch: Batch, device: torch.device, autocast: Autocast) -> None:
        """Detect the objects of the images of a batch."""
        if not self.places:
            self._is_finite = all(bool(value.isfinite().all()) for value in model.state_dict().values())
        places = batch.indices.tolist()
        assert isinstance(model, Detector)
        with ExitStack() as watched:
            for head in model.heads():
                watched.callback(head.register_forward_hook(self._watch).remove)
            found = detect(model, batch.images, device, autocast)
        predictions = [dict(objects._asdict(), boxes=_from_corners(objects.boxes)) for objects in found]
        truths = [self._annotations[place] for place in places]
        self._metric.update(
            predictions, [dict(t, masks=masks) for t, masks in zip(truths, batch.targets, strict=True)]
        )
        self.places += places

    def _watch(self, module: nn.Module, args: Any, output: Any) -> None:
        """Look at raw scores: torchvision drops infinite ones and NaN before anyone sees them."""
        tensors = tree_leaves(output)
        self._is_finite = self._is_finite and all(bool(tensor.isfinite().all()) for tensor in tensors)

    def state(self) -> DetectionState:
        """What was added."""
        lists: dict[str, Any] = self._metric.metric_state
        return DetectionState(self.places, lists, self._is_finite)

    def merge(self, states: Sequence[DetectionState]) -> None:
        """Put together what all processes added, in order of the images."""
        places = [place for state in states for place in state.places]
        order = sorted(range(len(places)), key=places.__getitem__)
        self.places = [places[i] for i in order]
        self._is_finite = all(state.is_finite for state in states)
        self._metric = new_metric(self._has_masks)
        for name in self._metric.metric_state:
            values = [value for state in states for value in state.lists[name]]
            if values:  # without masks, the lists of masks stay empty
                setattr(self._metric, name, [values[i] for i in order])

    @property
    def images(self) -> int:
        """Images that were added."""
        return len(self.places)

    def detections(self, number: int) -> Detections:
        """What was found in an image, by its number among those that were added."""
        from faster_coco_eval.core import mask as api  # type: ignore[import-untyped]

        metric = self._metric
        boxes, masks = metric.detection_box[number], None
        if self._has_masks:
            masks = torch.zeros(len(boxes), *self._data.size(self.places[number]), dtype=torch.bool)
            for place, (size, counts) in enumerate(metric.detection_mask[number]):
                pixels = api.decode([dict(size=size, counts=counts)])[:, :, 0]
                masks[place] = torch.from_numpy(pixels).bool()
        return Detections(
            torch.cat([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], 1),
            metric.detection_labels[number],
            metric.detection_scores[number],
            masks,
        )

    def entries(self) -> list[Entry]:
        """All detections in COCO's format of results."""
        metric, found = self._metric, []
        for number, place in enumerate(self.places):
            for i, label in enumerate(metric.detection_labels[number].tolist()):
                runs = metric.detection_mask[number][i] if self._has_masks else None
                found.append(
                    _entry(
                        self._data.image_ids[place],
                        self._data.category_ids[label],
                        metric.detection_box[number][i],
                        metric.detection_scores[number][i],
                        dict(size=runs[0], counts=runs[1]) if runs else None,
                    )
                )
        return found

    def scores(self) -> DetectionScores:
        """The scores of what was added."""
        return score(self._metric, self._data.classes, self._has_masks, self._is_finite)


def score(
    metric: "MeanAveragePrecision", classes: Sequence[str], has_masks: bool, is_finite: bool = True
) -> DetectionScores:
    """The scores of images that were added to a metric.

    Args:
        metric: The metric, of ``new_metric``.
        classes: Names of the classes.
        has_masks: Whether there are masks.
        is_finite: Whether all weights and scores are numbers.
    """
    found = metric.compute()
    seen = found["classes"].flatten().tolist()
    numbers, by_class = [], []
    for prefix in ("bbox_", "segm_") if has_masks else ("",):
        numbers.append(APScores(*(found[prefix + name].item() for name in NAMES)))
        precision = found[f"{prefix}precision"][..., 0, -1]  # all areas, most detections
        by_class.append({label: _mean(precision[..., place]) for place, label in enumerate(seen)})
    labels = torch.cat(metric.groundtruth_labels)[torch.cat(metric.groundtruth_crowds) == 0]
    objects = labels.bincount(minlength=len(classes)).tolist()
    return DetectionScores(
        images=len(metric.groundtruth_labels),
        box=numbers[0],
        mask=numbers[1] if has_masks else None,
        classes=[
            ClassScores(
                name, objects[label], by_class[0].get(label), by_class[-1].get(label) if has_masks else None
            )
            for label, name in enumerate(classes)
        ],
        is_finite=is_finite,
    )


def check_installed() -> None:
    """Raise a ``ValueError`` if the library that scores are computed with is not installed."""
    if missing([COCO_EVAL]):
        raise ValueError(f"task: detection needs faster-coco-eval: {how_to_install(COCO_EVAL)}")


def new_metric(has_masks: bool) -> "MeanAveragePrecision":
    """The mean average precision of torchmetrics, of boxes as x, y, width and height, and of masks.

    It keeps what it gets in lists, masks as runs. Each process has all images before it computes.
    """
    from torchmetrics.detection import MeanAveragePrecision  # takes two seconds

    metric = MeanAveragePrecision(
        box_format="xywh",
        iou_type=("bbox", "segm") if has_masks else ("bbox",),
        # Its own are rounded to float32, by which scores would differ from COCO's in the fourth digit.
        iou_thresholds=np.linspace(0.5, 0.95, 10).tolist(),
        rec_thresholds=np.linspace(0, 1, 101).tolist(),
        extended_summary=True,  # classes one by one would be evaluated anew, each in as much time as all
        backend="faster_coco_eval",
        sync_on_compute=False,
    )
    metric.warn_on_many_detections = False
    metric.update([], [])  # it warns if that never happened
    return metric


def annotations(data: CocoImages) -> list[dict[str, Tensor]]:
    """The objects of every image as the metric takes them, but for masks."""
    truth = data.ground_truth()
    found: dict[int | str, list[Entry]] = {image_id: [] for image_id in data.image_ids}
    for annotation in truth["annotations"]:
        found[annotation["image_id"]].append(annotation)
    labels = {category_id: label for label, category_id in enumerate(data.category_ids)}
    return [
        dict(
            boxes=torch.tensor([a["bbox"] for a in of_image], dtype=torch.float64).reshape(-1, 4),
            labels=torch.tensor([labels[a["category_id"]] for a in of_image], dtype=torch.long),
            iscrowd=torch.tensor([a["iscrowd"] for a in of_image], dtype=torch.long),
            area=torch.tensor([a["area"] for a in of_image], dtype=torch.float64),
        )
        for of_image in found.values()
    ]


def to_entries(found: Detections, image_id: int | str, category_ids: Sequence[int]) -> list[Entry]:
    """What was found in an image, in COCO's format of results."""
    from faster_coco_eval.core import mask as api

    masks = [None] * len(found.labels) if found.masks is None else found.masks.numpy()
    return [
        _entry(
            image_id,
            category_ids[label],
            box,
            score,
            None if mask is None else api.encode(np.asfortranarray(mask)),
        )
        for label, box, score, mask in zip(
            found.labels.tolist(), _from_corners(found.boxes), found.scores, masks, strict=True
        )
    ]


def _entry(
    image_id: int | str, category_id: int, box: Tensor, score: Tensor, runs: dict[str, Any] | None
) -> Entry:
    entry: Entry = dict(image_id=image_id, category_id=category_id, bbox=box.tolist(), score=score.item())
    if runs:
        entry["segmentation"] = dict(size=list(runs["size"]), counts=runs["counts"].decode())
    return entry


def _from_corners(boxes: Tensor) -> Tensor:
    return torch.cat([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], 1)


def _mean(precision: Tensor) -> float | None:
    """Average precision of a class; COCO has -1 where there is nothing to find."""
    values = precision[precision > -1]
    return values.mean().item() if len(values) else None
