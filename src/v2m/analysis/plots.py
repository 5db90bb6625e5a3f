"""PNGs of a run. matplotlib is imported where it draws: it takes a second."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import TYPE_CHECKING, Any

import torch
from PIL import Image
from torch import Tensor

from v2m.analysis.refinement import RefinementRow
from v2m.data import replace_file

if TYPE_CHECKING:
    from matplotlib.figure import Figure

BLUE, ORANGE, RED = "#2166ac", "#e08214", "#c0392b"
MANY_CLASSES = 40


def plot_learning_curve(history: Sequence[dict[str, float]], path: Path, title: str) -> None:
    """Draw loss and accuracy over epochs, for training and validation.

    Args:
        history: Rows with ``epoch``, ``train_loss``, ``val_loss``, ``train_top1`` and ``val_top1``.
        path: PNG to write.
        title: Heading.
    """
    figure = _figure(9, 3.8)
    epochs = [row["epoch"] for row in history]
    for axis, key, label in zip(figure.subplots(1, 2), ("loss", "top1"), ("loss", "accuracy"), strict=True):
        unit = ".1%" if key == "top1" else ".3f"
        for part, name, colour in (("train", "training", ORANGE), ("val", "validation", BLUE)):
            values = [row[f"{part}_{key}"] for row in history]
            axis.plot(
                epochs, values, color=colour, label=f"{name}: {values[-1]:{unit}}", marker="o", markersize=3
            )
        axis.set(xlabel="epoch", ylabel=label)
        axis.xaxis.get_major_locator().set_params(integer=True)
        axis.grid(alpha=0.3)
        axis.spines[["top", "right"]].set_visible(False)
        axis.legend(frameon=False)
        if key == "top1":
            axis.yaxis.set_major_formatter("{x:.0%}")
    figure.suptitle(title)
    _save(figure, path)


def plot_confusion_matrix(confusion: Tensor, classes: Sequence[str], path: Path, title: str) -> None:
    """Draw how often each class was taken for each.

    Args:
        confusion: Counts ``[classes, classes]``: rows are the true class.
        classes: Names of the classes.
        path: PNG to write.
        title: Heading.
    """
    count = len(classes)
    side = min(4.5 + 0.32 * count, 16)
    figure = _figure(side + 0.8, side)
    axis = figure.subplots()
    share = confusion.float() / confusion.sum(1, keepdim=True).clamp(min=1)
    image = axis.imshow(share.numpy(), cmap="Blues", vmin=0, vmax=1)
    axis.set(xlabel="predicted class", ylabel="true class", title=title)
    if count <= MANY_CLASSES:
        rotation = 0 if max(map(len, classes)) <= 3 else 45
        axis.set_xticks(range(count), classes, rotation=rotation, ha="center" if not rotation else "right")
        axis.set_yticks(range(count), classes)
        for i, j in confusion.nonzero().tolist():
            colour = "white" if share[i, j] > 0.5 else "black"
            axis.text(j, i, str(int(confusion[i, j])), ha="center", va="center", color=colour, fontsize=8)
    figure.colorbar(image, ax=axis, format="{x:.0%}", shrink=0.8, label="share of the true class")
    _save(figure, path)


def plot_predictions(
    images: Sequence[Image.Image],
    truths: Sequence[str],
    predictions: Sequence[str],
    probabilities: Sequence[float],
    path: Path,
    title: str,
    columns: int = 8,
) -> None:
    """Draw images with their predicted class and its probability; mistakes in red, with the true class.

    Args:
        images: PIL images of any size.
        truths: True class of each.
        predictions: Predicted class of each.
        probabilities: Probability of the predicted class, 0..1.
        path: PNG to write.
        title: Heading.
        columns: Images in a row.
    """
    rows = -(-len(images) // columns)
    figure = _figure(1.3 * columns, 1.65 * rows + 0.6)
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for axis in axes:
        axis.axis("off")
    for axis, image, truth, predicted, probability in zip(
        axes, images, truths, predictions, probabilities, strict=False
    ):
        axis.imshow(image, cmap="gray" if image.mode in ("L", "1") else None, interpolation="nearest")
        right = predicted == truth
        caption = f"{predicted}  {probability:.0%}" + ("" if right else f"\nis {truth}")
        axis.set_title(caption, fontsize=9, color="black" if right else RED, pad=3)
    figure.suptitle(title)
    _save(figure, path)


def plot_study(scores: Mapping[str, Sequence[float]], path: Path, title: str) -> None:
    """Draw accuracies over seeds: a dot for each, and a bar of one standard deviation about their mean.

    Args:
        scores: Accuracies (0..1) of each variant; those without any keep their line.
        path: PNG to write.
        title: Heading.
    """
    figure = _figure(8, 1.4 + 0.45 * len(scores))
    axis = figure.subplots()
    for height, values in enumerate(scores.values()):
        heights = [height + 0.4 * ((i + 0.5) / len(values) - 0.5) for i in range(len(values))]
        axis.plot(values, heights, "o", color=ORANGE, alpha=0.7, markersize=5)
        if values:
            spread = stdev(values) if len(values) > 1 else 0.0
            axis.errorbar(mean(values), height, xerr=spread, fmt="|", color=BLUE, capsize=4, markersize=14)
    axis.set(xlabel="accuracy on the validation images", ylim=(len(scores) - 0.5, -0.5), title=title)
    axis.set_yticks(range(len(scores)), list(scores))
    axis.xaxis.set_major_formatter("{x:.1%}")
    axis.grid(alpha=0.3, axis="x")
    axis.spines[["top", "right"]].set_visible(False)
    _save(figure, path)


def plot_refinement(rows: Sequence[RefinementRow], path: Path, title: str) -> None:
    """Draw error and accuracy over the number of sweeps.

    Args:
        rows: The exact recurrence first, then by the number of sweeps.
        path: PNG to write.
        title: Heading.
    """
    figure = _figure(9, 3.8)
    exact, *iterative = rows
    sweeps = [row.iterations or 0 for row in iterative]
    left, right = figure.subplots(1, 2)
    nonzero = [(count, row.error) for count, row in zip(sweeps, iterative, strict=True) if row.error]
    left.semilogy(*zip(*nonzero, strict=True), color=BLUE, marker="o", markersize=3)
    left.axhline(torch.finfo(torch.float32).eps, color="grey", linestyle=":", label="rounding of float32")
    left.set(ylabel="largest error of a logit, as a share")
    right.plot(
        sweeps, [row.top1 for row in iterative], color=ORANGE, marker="o", markersize=3, label="sweeps"
    )
    right.axhline(exact.top1, color=BLUE, linestyle="--", label=f"exact: {exact.top1:.2%}")
    right.yaxis.set_major_formatter("{x:.1%}")
    right.set(ylabel="accuracy")
    for axis in (left, right):
        axis.set(xlabel="sweeps")
        axis.xaxis.get_major_locator().set_params(integer=True)
        axis.grid(alpha=0.3)
        axis.spines[["top", "right"]].set_visible(False)
        axis.legend(frameon=False)
    figure.suptitle(title)
    _save(figure, path)


def choose_images(logits: Tensor, targets: Tensor, count: int, seed: int = 0) -> list[int]:
    """Indices of images worth showing: the surest mistakes first (at most half), then a random sample."""
    probabilities, predicted = logits.softmax(-1).max(-1)
    wrong = (predicted != targets).nonzero().flatten()
    mistakes = wrong[probabilities[wrong].argsort(descending=True)][: count // 2].tolist()
    order = torch.randperm(len(targets), generator=torch.Generator().manual_seed(seed)).tolist()
    others = [i for i in order if predicted[i] == targets[i]]
    return mistakes + others[: count - len(mistakes)]


def _figure(width: float, height: float) -> "Figure":
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), dpi=120, layout="constrained")


def _save(figure: "Figure", path: Path) -> None:
    options: dict[str, Any] = dict(format="png", facecolor="white")
    replace_file(path, lambda partial: figure.savefig(partial, **options))
