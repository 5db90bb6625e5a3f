"""What a model predicts for an image, one class for each task: plain Python and NumPy, on the CPU."""

from dataclasses import dataclass, field, replace
from typing import TypeAlias

import numpy as np

from v2m.system.errors import few


@dataclass(frozen=True)
class ClassificationPrediction:
    """The class of an image.

    Attributes:
        label: The likeliest class.
        probability: Its probability.
        probabilities: The probability of every class by its name, the likeliest first.
    """

    label: str
    probability: float
    probabilities: dict[str, float] = field(repr=False)

    def top(self, count: int = 5) -> list[tuple[str, float]]:
        """The likeliest classes and their probabilities."""
        return list(self.probabilities.items())[:count]


@dataclass(frozen=True, eq=False)
class DetectionPrediction:
    """The objects in an image, best first.

    Attributes:
        boxes: Left, top, right and bottom in pixels of the image, float32 ``[N, 4]``.
        labels: The class of each object by its name.
        scores: How sure the model is of each object, 0..1, float32 ``[N]``.
        masks: Which pixels of the image belong to each object, bool ``[N, H, W]``; None for a detector
            without masks.
    """

    boxes: np.ndarray
    labels: list[str]
    scores: np.ndarray
    masks: np.ndarray | None = field(repr=False)

    def __len__(self) -> int:
        return len(self.labels)

    def above(self, score: float) -> "DetectionPrediction":
        """The objects with at least this score; ``v2m predict`` draws those of 0.5 and more."""
        count = int((self.scores >= score).sum())  # they are in order
        masks = None if self.masks is None else self.masks[:count]
        return replace(
            self,
            boxes=self.boxes[:count],
            labels=self.labels[:count],
            scores=self.scores[:count],
            masks=masks,
        )


@dataclass(frozen=True, eq=False)
class SegmentationPrediction:
    """The class of every pixel of an image.

    Attributes:
        label_map: The place in ``classes`` of each pixel's class, int64 ``[H, W]`` of the image's size.
        classes: Names of the classes.
    """

    label_map: np.ndarray
    classes: list[str] = field(repr=False)

    def mask(self, label: str) -> np.ndarray:
        """Which pixels are of a class, bool ``[H, W]``.

        Raises:
            ValueError: there is no such class.
        """
        if label not in self.classes:
            raise ValueError(f"{label!r} is no class of this model, expected one of {few(self.classes)}")
        return self.label_map == self.classes.index(label)

    @property
    def shares(self) -> dict[str, float]:
        """The share of the pixels of every class that is there, the largest first."""
        counts = np.bincount(self.label_map.ravel(), minlength=len(self.classes)) / self.label_map.size
        return {self.classes[i]: float(counts[i]) for i in np.argsort(-counts, kind="stable") if counts[i]}


Prediction: TypeAlias = ClassificationPrediction | DetectionPrediction | SegmentationPrediction
