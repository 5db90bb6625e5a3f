"""Scores of a classifier: torchmetrics."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from v2m.data.loading import Batch
from v2m.tasks.evaluation import Autocast, Results


@dataclass(frozen=True)
class ClassScores:
    """Scores of one class; shares in 0..1."""

    name: str
    images: int
    precision: float
    recall: float
    f1: float


@dataclass(frozen=True)
class ClassificationScores:
    """Scores over a dataset.

    Attributes:
        images: Number of images.
        loss: Mean cross-entropy.
        top1: Share of images whose best class is theirs.
        top5: Share of images with their class among the best five (or all, where there are fewer).
        classes: Scores of every class.
        confusion: Images of class i taken for class j, ``[classes, classes]``.
    """

    images: int
    loss: float
    top1: float
    top5: float
    classes: list[ClassScores]
    confusion: Tensor

    @property
    def metrics(self) -> dict[str, float]:
        """The numbers for ``metrics.jsonl``."""
        return dict(loss=self.loss, top1=self.top1, top5=self.top5)


class ClassificationResults(Results):
    """Class scores of images.

    Args:
        classes: Names of the classes.

    Attributes:
        logits: Class scores ``[images, classes]``, float32.
        targets: Class indices ``[images]``.
        indices: Places in the dataset ``[images]``, in order once results are merged.
    """

    def __init__(self, classes: list[str]) -> None:
        self._classes = classes
        self.logits = torch.empty(0, len(classes))
        self.targets = self.indices = torch.empty(0, dtype=torch.long)
        self._parts: list[tuple[Tensor, Tensor, Tensor]] = []

    def add(self, model: nn.Module, batch: Batch, device: torch.device, autocast: Autocast) -> None:
        """Classify the images of a batch."""
        with autocast():
            logits = model(batch.images.to(device, non_blocking=True))
        self._parts.append((logits.float().cpu(), batch.targets.cpu(), batch.indices))

    def state(self) -> list[tuple[Tensor, Tensor, Tensor]]:
        """What was added."""
        return self._parts

    def merge(self, states: Sequence[list[tuple[Tensor, Tensor, Tensor]]]) -> None:
        """Put the images of all processes in order."""
        self._parts = [part for state in states for part in state]
        if self._parts:
            logits, targets, indices = (torch.cat(values) for values in zip(*self._parts, strict=True))
            order = indices.argsort()
            self.logits, self.targets, self.indices = logits[order], targets[order], indices[order]

    @property
    def images(self) -> int:
        """Images that were added."""
        return sum(len(targets) for _, targets, _ in self._parts)

    def scores(self) -> ClassificationScores:
        """Their scores."""
        return score(self.logits, self.targets, self._classes)


def score(logits: Tensor, targets: Tensor, class_names: list[str]) -> ClassificationScores:
    """Score logits ``[images, classes]`` against class indices ``[images]``.

    A class without images has recall 0. Readers recognise it by its number of images.
    """
    from torchmetrics.functional import classification as metrics  # here, because it takes two seconds

    count = len(class_names)
    per_class = {
        name: metric(logits, targets, num_classes=count, average="none").tolist()
        for name, metric in dict(
            precision=metrics.multiclass_precision,
            recall=metrics.multiclass_recall,
            f1=metrics.multiclass_f1_score,
        ).items()
    }
    images = torch.bincount(targets, minlength=count).tolist()
    return ClassificationScores(
        images=len(targets),
        loss=torch.nn.functional.cross_entropy(logits, targets).item(),
        top1=metrics.multiclass_accuracy(logits, targets, num_classes=count, average="micro").item(),
        top5=metrics.multiclass_accuracy(
            logits, targets, num_classes=count, average="micro", top_k=min(5, count)
        ).item(),
        classes=[
            ClassScores(name, images[i], *(per_class[key][i] for key in ("precision", "recall", "f1")))
            for i, name in enumerate(class_names)
        ],
        confusion=metrics.multiclass_confusion_matrix(logits, targets, num_classes=count),
    )
