"""The learning curve of a run."""

from collections.abc import Mapping, Sequence
from itertools import cycle
from pathlib import Path
from typing import Any

from v2m.pictures.colours import BLUE, ORANGE
from v2m.pictures.figure import new_figure, open_axis, save_figure

STYLES = ("-", "--", ":")
"""Lines of several metrics; colours tell training from validation."""


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
    figure = new_figure(9, 3.8)
    losses, shares = figure.subplots(1, 2)
    _draw_curves(losses, history, {"loss": ""}, ".3f")
    _draw_curves(shares, history, metrics, ".1%")
    losses.set(ylabel="loss")
    shares.set(ylabel=next(iter(metrics.values())) if len(metrics) == 1 else None)
    shares.yaxis.set_major_formatter("{x:.0%}")
    save_figure(figure, path, title)


def _draw_curves(
    axis: Any, history: Sequence[dict[str, float]], metrics: Mapping[str, str], unit: str
) -> None:
    epochs = [row["epoch"] for row in history]
    for (key, label), style in zip(metrics.items(), cycle(STYLES)):
        for part, name, colour in (("train", "training", ORANGE), ("val", "validation", BLUE)):
            values = [row[f"{part}_{key}"] for row in history if f"{part}_{key}" in row]
            if not values:
                continue
            # One metric is named beside the axis already.
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
    open_axis(axis)
    axis.legend(frameon=False)
