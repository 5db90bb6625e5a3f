"""Pictures of semantic segmentation: labels over images, and scores of classes."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image

from v2m.pictures.colours import BLUE, RED, palette
from v2m.pictures.figure import (
    DOTS,
    LONGEST_LEGEND,
    MOST_BARS,
    add_class_legend,
    new_figure,
    new_paired_sheet,
    save_figure,
    share_axis,
    short_name,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

OPACITY = 0.6
"""Of labels over an image."""
SHEET_SIDE, SMALLEST_SIDE = 320, 480
"""Pixels that images are reduced to on a sheet, and enlarged to on their own."""

Labels = npt.NDArray[np.integer[Any]]
LegendPlace = Literal["outside lower center", "outside right upper"]


class Segmented(NamedTuple):
    """An image in RGB, its true labels ``[H, W]`` and its predicted ones."""

    image: Image.Image
    truth: Labels
    predicted: Labels


def overlay(image: Image.Image, labels: Labels, classes: int) -> npt.NDArray[np.uint8]:
    """Labels in colour over a gray image ``[H, W, 3]``; the image shows where a label is no class."""
    gray = np.asarray(image.convert("L").convert("RGB"), dtype=np.float32)
    is_class = (labels >= 0) & (labels < classes)
    colours = palette(classes)[np.where(is_class, labels, 0)]  # gray is drawn where there is no class
    mixed = np.where(is_class[..., None], (1 - OPACITY) * gray + OPACITY * colours, gray)
    return mixed.round().astype(np.uint8)


def plot_segments(images: Sequence[Segmented], classes: Sequence[str], path: Path, title: str) -> None:
    """Draw images beside their true and their predicted labels, two to a row, the widest first.

    Args:
        images: The images, of any sizes.
        classes: Names of the classes.
        path: PNG to write.
        title: Heading.
    """
    # Images of like shape share a row, whose height is that of the taller one.
    images = sorted(map(_reduced, images), key=lambda item: _aspect(item.image))
    aspects = [_aspect(item.image) for item in images]
    figure, cells = new_paired_sheet(aspects, ("image", "truth", "prediction"), size=(6.3, 2.1), margin=1.5)
    for (left, middle, right), item in zip(cells, images, strict=True):
        left.imshow(item.image, interpolation="nearest")
        middle.imshow(overlay(item.image, item.truth, len(classes)), interpolation="nearest")
        right.imshow(overlay(item.image, item.predicted, len(classes)), interpolation="nearest")
    present = np.concatenate(
        [np.concatenate([item.truth.ravel(), item.predicted.ravel()]) for item in images]
    )
    _add_label_legend(figure, present, classes, "outside lower center", columns=4 * min(2, len(images)))
    save_figure(figure, path, title)


def plot_overlay(image: Image.Image, labels: Labels, classes: Sequence[str], path: Path) -> None:
    """Draw the labels of one image over it, with a legend of the classes that are there.

    Args:
        image: The image.
        labels: Its labels ``[H, W]``.
        classes: Names of the classes.
        path: PNG to write.
    """
    times = max(1, SMALLEST_SIDE / max(image.size))
    width, height = (side * times / DOTS for side in image.size)
    figure = new_figure(width + 2.4, max(height, 0.4 + 0.2 * min(LONGEST_LEGEND + 1, len(np.unique(labels)))))
    axis = figure.subplots()
    axis.imshow(overlay(image, labels, len(classes)), interpolation="nearest")
    axis.axis("off")
    _add_label_legend(figure, labels, classes, "outside right upper", columns=1)
    save_figure(figure, path)


def plot_class_ious(ious: Sequence[tuple[str, float | None]], mean: float, path: Path, title: str) -> None:
    """Draw the IoU of every class as a bar, and their mean as a line.

    Args:
        ious: Names of the classes and their IoU, 0..1; None for a class that is nowhere.
        mean: Mean IoU.
        path: PNG to write.
        title: Heading.
    """
    columns = math.ceil(len(ious) / MOST_BARS)
    rows = math.ceil(len(ious) / columns)
    figure = new_figure(1.5 + 5 * columns, 1.6 + 0.28 * rows)
    for column, axis in enumerate(figure.subplots(1, columns, squeeze=False)[0]):
        part = ious[column * rows : (column + 1) * rows]
        bars = axis.barh(range(len(part)), [iou or 0.0 for _, iou in part], color=BLUE, height=0.75)
        texts = ["nowhere" if iou is None else f"{iou:.1%}" for _, iou in part]
        axis.bar_label(bars, texts, padding=3, fontsize=8)
        axis.axvline(mean, color=RED, linestyle="--", linewidth=1, label=f"mean: {mean:.1%}")
        share_axis(axis, "IoU", [name for name, _ in part], ylim=(rows - 0.5, -0.5))
    figure.legend(*axis.get_legend_handles_labels(), loc="outside lower right", frameon=False)
    save_figure(figure, path, title)


def _reduced(item: Segmented) -> Segmented:
    """An image and its labels in the size of a sheet."""
    image = item.image.copy()
    image.thumbnail((SHEET_SIDE, SHEET_SIDE))
    height, width = item.truth.shape
    # The nearest label: between two of them there may be the number of a third.
    rows = np.arange(image.height) * height // image.height
    columns = np.arange(image.width) * width // image.width
    return Segmented(image, item.truth[np.ix_(rows, columns)], item.predicted[np.ix_(rows, columns)])


def _aspect(image: Image.Image) -> float:
    return image.height / image.width


def _add_label_legend(
    figure: "Figure", labels: Labels, classes: Sequence[str], place: LegendPlace, columns: int
) -> None:
    """Name the classes of these labels, the largest ones where there are many."""
    found, counts = np.unique(labels[(labels >= 0) & (labels < len(classes))], return_counts=True)
    chosen = sorted(found[counts.argsort()[::-1][:LONGEST_LEGEND]].tolist())
    colours: list[Any] = list(palette(len(classes))[chosen] / 255)
    names = [short_name(classes[i]) for i in chosen]
    if len(found) > len(chosen):
        colours.append("none")
        names.append(f"and {len(found) - len(chosen)} more")
    add_class_legend(figure, colours, names, loc=place, ncols=columns, fontsize=9)
