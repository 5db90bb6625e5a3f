"""Scores of a classifier: torchmetrics."""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class ClassScores:
    """Scores of one class; shares in 0..1."""

    name: str
    images: int
    precision: float
    recall: float
    f1: float


@dataclass(frozen=True)
class Scores:
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


def score(logits: Tensor, targets: Tensor, class_names: list[str]) -> Scores:
    """Score logits ``[images, classes]`` against class indices ``[images]``.

    A class without images has recall 0 and is left to the reader by its number of images.
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
    return Scores(
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
