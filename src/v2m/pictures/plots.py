"""PNGs of a run. matplotlib is imported where it draws: it takes a second."""

import warnings
from collections.abc import Mapping, Sequence
from itertools import cycle
from pathlib import Path
from statistics import mean, stdev
from typing import TYPE_CHECKING, Any

import torch
from PIL import Image
from torch import Tensor

from v2m.system.errors import shown
from v2m.system.files import replace_file
from v2m.system.names import figure_text, shortened

if TYPE_CHECKING:
    from matplotlib.figure import Figure

BLUE, ORANGE, RED = "#2166ac", "#e08214", "#c0392b"
COLOURS = (BLUE, ORANGE, "#4d9221", "#8073ac")
MANY_CLASSES = 40
LONGEST_NAME = 24
TITLE_LETTERS = 10
"""Letters of a heading to an inch."""


def plot_learning_curve(
    history: Sequence[dict[str, float]], path: Path, title: str, metrics: Mapping[str, str]
) -> None:
    """Draw loss and other metrics over epochs, for training and validation as far as there are both.

    Args:
        history: Rows with ``epoch``, ``train_loss``, and ``train_`` and ``val_`` before the names of metrics.
        path: PNG to write.
        title: Heading.
        metrics: Shares to draw, by name: what they are called.
    """
    figure = _figure(9, 3.8)
    losses, shares = figure.subplots(1, 2)
    _curves(losses, history, {"loss": ""}, ".3f")
    _curves(shares, history, metrics, ".1%")
    losses.set(ylabel="loss")
    shares.set(ylabel=next(iter(metrics.values())) if len(metrics) == 1 else None)
    shares.yaxis.set_major_formatter("{x:.0%}")
    _save(figure, path, title)


def _curves(axis: Any, history: Sequence[dict[str, float]], metrics: Mapping[str, str], unit: str) -> None:
    epochs = [row["epoch"] for row in history]
    for (key, label), style in zip(metrics.items(), cycle(("-", "--", ":"))):
        for part, name, colour in (("train", "training", ORANGE), ("val", "validation", BLUE)):
            values = [row[f"{part}_{key}"] for row in history if f"{part}_{key}" in row]
            if values:
                words = f"{name} {label}".rstrip() if len(metrics) > 1 else name
                axis.plot(
                    epochs,
                    values,
                    style,
                    color=colour,
                    label=f"{words}: {values[-1]:{unit}}",
                    marker="o",
                    markersize=3,
                )
    axis.set(xlabel="epoch")
    axis.xaxis.get_major_locator().set_params(integer=True)
    axis.grid(alpha=0.3)
    axis.spines[["top", "right"]].set_visible(False)
    axis.legend(frameon=False)


def plot_confusion_matrix(confusion: Tensor, classes: Sequence[str], path: Path, title: str) -> None:
    """Draw how often each class was taken for each.

    Args:
        confusion: Counts ``[classes, classes]``: rows are the true class.
        classes: Names of the classes.
        path: PNG to write.
        title: Heading.
    """
    count, names = len(classes), [*map(_short, classes)]
    side = min(4.5 + 0.32 * count, 16)
    figure = _figure(side + 0.8, side)
    axis = figure.subplots()
    share = confusion.float() / confusion.sum(1, keepdim=True).clamp(min=1)
    image = axis.imshow(share.numpy(), cmap="Blues", vmin=0, vmax=1)
    axis.set(xlabel="predicted class", ylabel="true class", title=_heading(title, figure))
    if count <= MANY_CLASSES:
        rotation = 0 if max(map(len, names)) <= 3 else 45
        axis.set_xticks(range(count), names, rotation=rotation, ha="center" if not rotation else "right")
        axis.set_yticks(range(count), names)
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
        caption = f"{_short(predicted)}  {probability:.0%}" + ("" if right else f"\nis {_short(truth)}")
        axis.set_title(caption, fontsize=9, color="black" if right else RED, pad=3)
    _save(figure, path, title)


def plot_study(scores: Mapping[str, Mapping[str, Sequence[float]]], path: Path, title: str) -> None:
    """Draw scores over seeds: a dot for each, and a bar of one standard deviation about their mean.

    Args:
        scores: By what is measured, the shares (0..1) of each variant; those without any keep their line.
        path: PNG to write.
        title: Heading.
    """
    variants = list(next(iter(scores.values())))
    figure = _figure(3 + 5 * len(scores), 1.4 + 0.45 * len(variants))
    axes = figure.subplots(1, len(scores), sharey=True, squeeze=False)[0]
    for axis, (name, by_variant) in zip(axes, scores.items(), strict=True):
        for height, values in enumerate(by_variant.values()):
            heights = [height + 0.4 * ((i + 0.5) / len(values) - 0.5) for i in range(len(values))]
            axis.plot(values, heights, "o", color=ORANGE, alpha=0.7, markersize=5)
            if values:
                spread = stdev(values) if len(values) > 1 else 0.0
                middle = mean(values)
                axis.errorbar(middle, height, xerr=spread, fmt="|", color=BLUE, capsize=4, markersize=14)
        axis.set(xlabel=f"{name} on the validation images", ylim=(len(variants) - 0.5, -0.5))
        axis.set_yticks(range(len(variants)), map(_short, variants))
        axis.xaxis.set_major_formatter("{x:.1%}")
        axis.grid(alpha=0.3, axis="x")
        axis.spines[["top", "right"]].set_visible(False)
    _save(figure, path, title)


def plot_refinement(
    sweeps: Sequence[int],
    errors: Sequence[float],
    accuracies: Sequence[float],
    exact: float,
    path: Path,
    title: str,
) -> None:
    """Draw error and accuracy over the number of sweeps.

    Args:
        sweeps: Numbers of sweeps.
        errors: For each, the largest error of a logit, as a share of the largest exact one.
        accuracies: For each, the share of images that are right.
        exact: Accuracy of the exact recurrence.
        path: PNG to write.
        title: Heading.
    """
    figure = _figure(9, 3.8)
    left, right = figure.subplots(1, 2)
    nonzero = [(count, error) for count, error in zip(sweeps, errors, strict=True) if error]
    left.semilogy(*zip(*nonzero, strict=True), color=BLUE, marker="o", markersize=3)
    left.axhline(torch.finfo(torch.float32).eps, color="grey", linestyle=":", label="rounding of float32")
    left.set(ylabel="largest error of a logit, as a share")
    right.plot(sweeps, accuracies, color=ORANGE, marker="o", markersize=3, label="sweeps")
    right.axhline(exact, color=BLUE, linestyle="--", label=f"exact: {exact:.2%}")
    right.yaxis.set_major_formatter("{x:.1%}")
    right.set(ylabel="accuracy")
    for axis in (left, right):
        axis.set(xlabel="sweeps")
        axis.xaxis.get_major_locator().set_params(integer=True)
        axis.grid(alpha=0.3)
        axis.spines[["top", "right"]].set_visible(False)
        axis.legend(frameon=False)
    _save(figure, path, title)


def plot_classes(
    counts: Mapping[str, Mapping[str, int]], path: Path, title: str, what: str = "images"
) -> None:
    """Draw how many images there are of each class: bars, or for very many classes curves.

    Args:
        counts: For each split, the number of images of each class.
        path: PNG to write.
        title: Heading.
        what: What is counted, if not images.
    """
    names = list(dict.fromkeys(name for split in counts.values() for name in split))
    if len(names) <= MANY_CLASSES:
        _class_bars(counts, names, path, title, what)
        return
    figure = _figure(8, 4)
    axis = figure.subplots()
    for (split, images), colour in zip(counts.items(), cycle(COLOURS)):
        ordered = sorted((images.get(name, 0) for name in names), reverse=True)
        label = f"{_short(split)}: {sum(ordered):,} {what}"
        axis.plot(range(1, len(ordered) + 1), ordered, color=colour, label=label, drawstyle="steps-mid")
    axis.set(xlabel="class, from the largest to the smallest", ylabel=what, title=_heading(title, figure))
    axis.set_yscale("symlog", linthresh=1)
    axis.set_ylim(bottom=0)
    axis.yaxis.set_major_formatter("{x:,.0f}")
    axis.grid(alpha=0.3)
    axis.spines[["top", "right"]].set_visible(False)
    axis.legend(frameon=False)
    _save(figure, path)


def _class_bars(
    counts: Mapping[str, Mapping[str, int]], names: Sequence[str], path: Path, title: str, what: str
) -> None:
    """A panel per split with a bar per class, zeros in red."""
    figure = _figure(3.2 + 3.2 * len(counts), 1.3 + 0.28 * len(names))
    axes = figure.subplots(1, len(counts), squeeze=False, sharey=True)[0]
    for axis, (split, images), colour in zip(axes, counts.items(), cycle(COLOURS)):
        values = [images.get(name, 0) for name in names]
        bars = axis.barh(range(len(names)), values, color=colour, height=0.75)
        labels = axis.bar_label(bars, [f"{value:,}" for value in values], padding=3, fontsize=8)
        for label, value in zip(labels, values, strict=True):
            label.set_color("black" if value else RED)
        axis.set(xlabel=what, title=f"{_short(split)}: {sum(values):,}", ylim=(len(names) - 0.5, -0.5))
        axis.set_xlim(0, 1.18 * max(1, *values))
        axis.set_yticks(range(len(names)), map(_short, names))
        axis.xaxis.set_major_formatter("{x:,.0f}")
        axis.xaxis.get_major_locator().set_params(integer=True, nbins=5 if max(values) < 1e6 else 3)
        axis.grid(alpha=0.3, axis="x")
        axis.set_axisbelow(True)
        axis.spines[["top", "right"]].set_visible(False)
    _save(figure, path, title)


def plot_probes(
    knn: Mapping[str, Mapping[int, float]], linear: Mapping[str, float], path: Path, title: str
) -> None:
    """Draw how well classes are told from frozen features, for each model.

    Args:
        knn: Accuracies (0..1) by the number of neighbours.
        linear: Accuracy of a linear classifier.
        path: PNG to write.
        title: Heading.
    """
    figure = _figure(10, max(3.6, 1.6 + 0.4 * len(linear)))
    left, right = figure.subplots(1, 2)
    names = map(shown, linear)
    labels = [figure_text(n if len(n) <= LONGEST_NAME else f"…{n[-LONGEST_NAME:]}") for n in names]
    lines = [
        left.plot([*accuracies], [*accuracies.values()], color=colour, marker="o", markersize=4)[0]
        for accuracies, colour in zip(knn.values(), cycle(COLOURS))
    ]
    counts = sorted({count for accuracies in knn.values() for count in accuracies})
    left.set_xscale("log")
    left.set_xticks(counts, map(str, counts))
    left.minorticks_off()
    left.set(xlabel="nearest neighbours that vote", ylabel="accuracy on the validation images")
    left.yaxis.set_major_formatter("{x:.1%}")
    colours = [colour for _, colour in zip(linear, cycle(COLOURS))]
    bars = right.barh(range(len(linear)), list(linear.values()), 0.6, color=colours)
    right.bar_label(bars, [f"{value:.1%}" for value in linear.values()], padding=3)
    right.set(xlabel="accuracy of a linear classifier", xlim=(0, 1.2), ylim=(len(linear) - 0.4, -0.6))
    right.set_yticks(range(len(linear)), labels)
    right.set_xticks([0, 0.25, 0.5, 0.75, 1])
    right.xaxis.set_major_formatter("{x:.0%}")
    for axis in (left, right):
        axis.grid(alpha=0.3, axis="y" if axis is left else "x")
        axis.spines[["top", "right"]].set_visible(False)
    _add_legend(left, lines, labels)
    _save(figure, path, title)


def choose_images(logits: Tensor, targets: Tensor, count: int, seed: int = 0) -> list[int]:
    """Indices of images worth showing: the surest mistakes first (at most half), then a random sample."""
    probabilities, predicted = logits.softmax(-1).max(-1)
    wrong = (predicted != targets).nonzero().flatten()
    mistakes = wrong[probabilities[wrong].argsort(descending=True)][: count // 2].tolist()
    order = torch.randperm(len(targets), generator=torch.Generator().manual_seed(seed)).tolist()
    others = [i for i in order if predicted[i] == targets[i]]
    return mistakes + others[: count - len(mistakes)]


def _share_axis(axis: Any, label: str, names: Sequence[str], ylim: tuple[float, float]) -> None:
    """Make an axis ready for a bar with a share for each name."""
    axis.set(xlim=(0, 1.15), ylim=ylim, xlabel=label)
    axis.set_yticks(range(len(names)), map(_short, names))
    axis.set_xticks([0, 0.25, 0.5, 0.75, 1])
    axis.xaxis.set_major_formatter("{x:.0%}")
    axis.grid(alpha=0.3, axis="x")
    axis.set_axisbelow(True)
    axis.spines[["top", "right"]].set_visible(False)


def _short(name: str) -> str:
    """A name as one for matplotlib, of a few letters."""
    text = shown(name)
    return figure_text(text if len(text) <= LONGEST_NAME else f"{text[: LONGEST_NAME - 1]}…")


def _heading(title: str, figure: "Figure") -> str:
    """A title of as many letters as there is room for."""
    return figure_text(shortened(shown(title), round(TITLE_LETTERS * figure.get_figwidth())))


def _add_legend(owner: Any, handles: Sequence[Any], names: Sequence[str], **options: Any) -> None:
    """Give axes or a figure a legend, whose own labels may not begin with an underscore."""
    numbers = [str(number) for number in range(len(handles))]
    legend = owner.legend(handles, numbers, frameon=False, **options)
    for text, name in zip(legend.get_texts(), names, strict=True):
        text.set_text(name)


def _figure(width: float, height: float) -> "Figure":
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), dpi=120, layout="constrained")


def _save(figure: "Figure", path: Path, title: str = "") -> None:
    """Write a figure, with a heading if it has one. Names in it are no LaTeX, whatever a user has set."""
    from matplotlib import rc_context
    from matplotlib.text import Text

    if title:
        figure.suptitle(_heading(title, figure))
    for text in figure.findobj(Text):
        text.set_usetex(False)  # type: ignore[attr-defined]
    options: dict[str, Any] = dict(format="png", facecolor="white")
    with warnings.catch_warnings(), rc_context({"text.usetex": False}):
        warnings.filterwarnings("ignore", "Glyph .* missing from font")  # which is seen in the picture
        replace_file(path, lambda partial: figure.savefig(partial, **options))
