"""Scores of a segmentation model: torchmetrics' confusion matrix of all pixels."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from v2m.data.loading import Batch
from v2m.system.errors import DataError
from v2m.tasks.evaluation import Autocast, Results
from v2m.tasks.segmentation.config import InferenceConfig
from v2m.tasks.segmentation.model import Segmenter, iter_predictions

SHOWN_IMAGES = 12


@dataclass(frozen=True)
class ClassScores:
    """Scores of one class; shares in 0..1.

    Attributes:
        name: Its name.
        pixels: Pixels that have its label.
        iou: Pixels that are taken for it and are it, as a share of those that are or are taken for it; None
            where there are none.
        accuracy: Share of its pixels that are taken for it; None where it has none.
    """

    name: str
    pixels: int
    iou: float | None
    accuracy: float | None


@dataclass(frozen=True)
class SegmentationScores:
    """Scores over the labelled pixels of a dataset; shares in 0..1.

    Attributes:
        images: Number of images; those without a labelled pixel count too.
        loss: Mean cross-entropy.
        miou: Mean IoU of the classes that are in the masks or the predictions, as torchmetrics has it.
        pixel_accuracy: Share of the pixels whose class is theirs.
        class_accuracy: Mean accuracy of the classes that are in the masks.
        classes: Scores of every class.
        confusion: Pixels of class i taken for class j, ``[classes, classes]``.
    """

    images: int
    loss: float
    miou: float
    pixel_accuracy: float
    class_accuracy: float
    classes: list[ClassScores]
    confusion: Tensor

    @property
    def metrics(self) -> dict[str, float]:
        """The numbers for ``metrics.jsonl``."""
        names = ("loss", "miou", "pixel_accuracy", "class_accuracy")
        return {name: getattr(self, name) for name in names}


class SegmentationState(NamedTuple):
    """What one process adds: its confusion matrix, summed cross-entropy, images, and a few predictions."""

    confusion: Tensor
    loss: float
    images: int
    shown: dict[int, Tensor]


class SegmentationResults(Results):
    """Pixels of images by true and predicted class; memory does not grow with their number.

    Args:
        classes: Names of the classes.
        inference: How images are segmented.
        ignore_index: Label of pixels that have none.
        images: Images of the dataset.

    Attributes:
        shown: Predicted labels ``[H, W]`` of a few images, spread over the dataset, by their place in it.
    """

    def __init__(
        self, classes: Sequence[str], inference: InferenceConfig, ignore_index: int, images: int
    ) -> None:
        self._classes, self._inference, self._ignore_index = list(classes), inference, ignore_index
        self._wanted = {i * images // SHOWN_IMAGES for i in range(SHOWN_IMAGES)}
        self._confusion = torch.zeros(len(classes), len(classes), dtype=torch.long)
        self._loss, self._images = 0.0, 0
        self.shown: dict[int, Tensor] = {}

    def add(self, model: nn.Module, batch: Batch, device: torch.device, autocast: Autocast) -> None:
        """Segment the images of a batch."""
        assert isinstance(model, Segmenter)
        images = [image.to(device, non_blocking=True) for image in batch.images]
        indices = batch.indices.tolist()
        with autocast():
            for number, logits in iter_predictions(model, images, self._inference):
                self._count(logits, batch.targets[number].to(device))
                if indices[number] in self._wanted:
                    small = torch.uint8 if len(self._classes) <= 2**8 else torch.int16
                    self.shown[indices[number]] = logits.argmax(0).to(small).cpu()
        self._images += len(images)

    def _count(self, logits: Tensor, labels: Tensor) -> None:
        from torchmetrics.functional.classification import multiclass_confusion_matrix  # takes two seconds

        self._confusion += multiclass_confusion_matrix(
            logits.argmax(0),
            labels,
            num_classes=len(self._classes),
            ignore_index=self._ignore_index,
            validate_args=False,
        ).cpu()
        self._loss += F.cross_entropy(
            logits[None], labels[None], ignore_index=self._ignore_index, reduction="sum"
        ).item()

    def state(self) -> SegmentationState:
        """What was added."""
        return SegmentationState(self._confusion, self._loss, self._images, self.shown)

    def merge(self, states: Sequence[SegmentationState]) -> None:
        """Add up what all processes added."""
        self._confusion = torch.stack([state.confusion for state in states]).sum(0)
        self._loss = sum(state.loss for state in states)
        self._images = sum(state.images for state in states)
        shown = {index: labels for state in states for index, labels in state.shown.items()}
        self.shown = {index: shown[index] for index in sorted(shown)[:SHOWN_IMAGES]}

    @property
    def images(self) -> int:
        """Images that were added."""
        return self._images

    def scores(self) -> SegmentationScores:
        """Their scores.

        Raises:
            DataError: no pixel has a label.
        """
        return score(self._confusion, self._loss, self._images, self._classes)


def score(confusion: Tensor, loss: float, images: int, classes: Sequence[str]) -> SegmentationScores:
    """Scores of pixels.

    Args:
        confusion: Pixels of class i taken for class j, ``[classes, classes]``.
        loss: Sum of their cross-entropy.
        images: Images that they are of.
        classes: Names of the classes.

    Raises:
        DataError: there are none.
    """
    total = int(confusion.sum())
    if not total:
        raise DataError(f"data: none of {images} images to validate on has a labelled pixel")
    right, pixels = confusion.diag().double(), confusion.sum(1)
    ious = right / (pixels + confusion.sum(0) - right)  # NaN for a class that is nowhere
    accuracies = right / pixels
    return SegmentationScores(
        images=images,
        loss=loss / total,
        miou=ious.nanmean().item(),
        pixel_accuracy=right.sum().item() / total,
        class_accuracy=accuracies.nanmean().item(),
        classes=[
            ClassScores(name, *row)
            for name, *row in zip(classes, pixels.tolist(), _shares(ious), _shares(accuracies), strict=True)
        ],
        confusion=confusion,
    )


def _shares(values: Tensor) -> list[float | None]:
    return [None if value != value else value for value in values.tolist()]
