"""Scores of models beside each other: variants of a study, numbers of sweeps, frozen features."""

from collections.abc import Mapping, Sequence
from itertools import cycle
from pathlib import Path
from statistics import mean, stdev

import numpy as np

from v2m.pictures.colours import BLUE, COLOURS, ORANGE
from v2m.pictures.figure import LONGEST_NAME, add_legend, new_figure, open_axis, save_figure, short_name
from v2m.system.errors import shown
from v2m.system.names import figure_text


def plot_study(scores: Mapping[str, Mapping[str, Sequence[float]]], path: Path, title: str) -> None:
    """Draw scores over seeds: a dot for each, and a bar of one standard deviation about their mean.

    Args:
        scores: By what is measured, the shares (0..1) of each variant; those without any keep their line.
        path: PNG to write.
        title: Heading.
    """
    variants = list(next(iter(scores.values())))
    figure = new_figure(3 + 5 * len(scores), 1.4 + 0.45 * len(variants))
    axes = figure.subplots(1, len(scores), sharey=True, squeeze=False)[0]
    for axis, (name, by_variant) in zip(axes, scores.items(), strict=True):
        for height, values in enumerate(by_variant.values()):
            # Seeds lie a little above each other, so that equal scores are all seen.
            heights = [height + 0.4 * ((i + 0.5) / len(values) - 0.5) for i in range(len(values))]
            axis.plot(values, heights, "o", color=ORANGE, alpha=0.7, markersize=5)
            if values:
                spread = stdev(values) if len(values) > 1 else 0.0
                middle = mean(values)
                axis.errorbar(middle, height, xerr=spread, fmt="|", color=BLUE, capsize=4, markersize=14)
        axis.set(xlabel=f"{name} on the validation images", ylim=(len(variants) - 0.5, -0.5))
        axis.set_yticks(range(len(variants)), map(short_name, variants))
        axis.xaxis.set_major_formatter("{x:.1%}")
        open_axis(axis, "x")
    save_figure(figure, path, title)


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
    figure = new_figure(9, 3.8)
    left, right = figure.subplots(1, 2)
    # An error of 0 has no place on a logarithmic axis.
    nonzero = [(count, error) for count, error in zip(sweeps, errors, strict=True) if error]
    left.semilogy(*zip(*nonzero, strict=True), color=BLUE, marker="o", markersize=3)
    left.axhline(np.finfo(np.float32).eps, color="grey", linestyle=":", label="rounding of float32")
    left.set(ylabel="largest error of a logit, as a share")
    right.plot(sweeps, accuracies, color=ORANGE, marker="o", markersize=3, label="sweeps")
    right.axhline(exact, color=BLUE, linestyle="--", label=f"exact: {exact:.2%}")
    right.yaxis.set_major_formatter("{x:.1%}")
    right.set(ylabel="accuracy")
    for axis in (left, right):
        axis.set(xlabel="sweeps")
        axis.xaxis.get_major_locator().set_params(integer=True)
        open_axis(axis)
        axis.legend(frameon=False)
    save_figure(figure, path, title)


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
    figure = new_figure(10, max(3.6, 1.6 + 0.4 * len(linear)))
    left, right = figure.subplots(1, 2)
    labels = [_end_of_name(name) for name in linear]
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
    open_axis(left, "y")
    add_legend(left, lines, labels)
    colours = [colour for _, colour in zip(linear, cycle(COLOURS))]
    bars = right.barh(range(len(linear)), list(linear.values()), 0.6, color=colours)
    right.bar_label(bars, [f"{value:.1%}" for value in linear.values()], padding=3)
    right.set(xlabel="accuracy of a linear classifier", xlim=(0, 1.2), ylim=(len(linear) - 0.4, -0.6))
    right.set_yticks(range(len(linear)), labels)
    right.set_xticks([0, 0.25, 0.5, 0.75, 1])
    right.xaxis.set_major_formatter("{x:.0%}")
    open_axis(right, "x")
    save_figure(figure, path, title)


def _end_of_name(name: str) -> str:
    """The end of a long name: models are paths, which begin alike."""
    text = shown(name)
    return figure_text(text if len(text) <= LONGEST_NAME else f"…{text[-LONGEST_NAME:]}")
