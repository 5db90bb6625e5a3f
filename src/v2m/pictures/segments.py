"""Pictures of semantic segmentation: labels over images, and scores of classes."""

import colorsys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image

from v2m.pictures.plots import BLUE, MANY_CLASSES, RED, _add_legend, _figure, _save, _share_axis, _short

if TYPE_CHECKING:
    from matplotlib.figure import Figure

OPACITY = 0.6
"""Of labels over an image."""
LONGEST_LEGEND = 24
SHEET_SIDE, SMALLEST_SIDE = 320, 480
"""Pixels that images are reduced to on a sheet, and enlarged to on their own."""
GOLDEN = 0.618034

Labels = npt.NDArray[np.integer[Any]]
LegendPlace = Literal["outside lower center", "outside right upper"]


class Segmented(NamedTuple):
    """An image in RGB, its true labels ``[H, W]`` and its predicted ones."""

    image: Image.Image
    truth: Labels
    predicted: Labels


def palette(count: int) -> npt.NDArray[np.uint8]:
    """Colours ``[count, 3]`` of classes, which do not depend on how many there are."""
    from matplotlib import colormaps

    first = np.asarray(colormaps["tab20"].colors)  # type: ignore[attr-defined]
    first = np.concatenate([first[::2], first[1::2]])  # strong ones before their pale partners
    others = [
        colorsys.hsv_to_rgb(i * GOLDEN % 1, (0.9, 0.55)[i % 2], (0.95, 0.7, 0.5)[i % 3])
        for i in range(max(0, count - len(first)))
    ]
    colours = np.concatenate([first, np.reshape(others, (-1, 3))])[:count]
    return (255 * colours).round().astype(np.uint8)


def overlay(image: Image.Image, labels: Labels, classes: int) -> npt.NDArray[np.uint8]:
    """Labels in colour over a gray image ``[H, W, 3]``; the image shows where a label is no class."""
    gray = np.asarray(image.convert("L").convert("RGB"), dtype=np.float32)
    is_class = (labels >= 0) & (labels < classes)
    colours = palette(classes)[np.where(is_class, labels, 0)]
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
    images = sorted(map(_reduced, images), key=lambda item: _aspect(item.image))
    rows, pairs = -(-len(images) // 2), min(2, len(images))
    tallest = [max(_aspect(item.image) for item in images[2 * row : 2 * row + 2]) for row in range(rows)]
    figure = _figure(6.3 * pairs, 2.1 * sum(tallest) + 1.5)
    axes = figure.subplots(rows, 3 * pairs, squeeze=False, gridspec_kw=dict(height_ratios=tallest))
    for axis in axes.ravel():
        axis.axis("off")
    for number, item in enumerate(images):
        first = 3 * (number % 2)
        for axis, pixels in zip(
            axes[number // 2, first : first + 3],
            (
                item.image,
                overlay(item.image, item.truth, len(classes)),
                overlay(item.image, item.predicted, len(classes)),
            ),
            strict=True,
        ):
            axis.imshow(pixels, interpolation="nearest")
    for first in range(0, 3 * pairs, 3):
        for axis, name in zip(axes[0, first : first + 3], ("image", "truth", "prediction"), strict=True):
            axis.set_title(name, fontsize=10)
    present = np.concatenate(
        [np.concatenate([item.truth.ravel(), item.predicted.ravel()]) for item in images]
    )
    _legend(figure, present, classes, "outside lower center", columns=4 * pairs)
    _save(figure, path, title)


def plot_overlay(image: Image.Image, labels: Labels, classes: Sequence[str], path: Path) -> None:
    """Draw the labels of one image over it, with a legend of the classes that are there.

    Args:
        image: The image.
        labels: Its labels ``[H, W]``.
        classes: Names of the classes.
        path: PNG to write.
    """
    times = max(1, SMALLEST_SIDE / max(image.size))
    width, height = (side * times / 120 for side in image.size)
    figure = _figure(width + 2.4, max(height, 0.4 + 0.2 * min(LONGEST_LEGEND + 1, len(np.unique(labels)))))
    axis = figure.subplots()
    axis.imshow(overlay(image, labels, len(classes)), interpolation="nearest")
    axis.axis("off")
    _legend(figure, labels, classes, "outside right upper", columns=1)
    _save(figure, path)


def plot_class_ious(ious: Sequence[tuple[str, float | None]], mean: float, path: Path, title: str) -> None:
    """Draw the IoU of every class as a bar, and their mean as a line.

    Args:
        ious: Names of the classes and their IoU, 0..1; None for a class that is nowhere.
        mean: Mean IoU.
        path: PNG to write.
        title: Heading.
    """
    columns = -(-len(ious) // MANY_CLASSES)
    rows = -(-len(ious) // columns)
    figure = _figure(1.5 + 5 * columns, 1.6 + 0.28 * rows)
    for column, axis in enumerate(figure.subplots(1, columns, squeeze=False)[0]):
        part = ious[column * rows : (column + 1) * rows]
        bars = axis.barh(range(len(part)), [iou or 0.0 for _, iou in part], color=BLUE, height=0.75)
        texts = ["nowhere" if iou is None else f"{iou:.1%}" for _, iou in part]
        axis.bar_label(bars, texts, padding=3, fontsize=8)
        axis.axvline(mean, color=RED, linestyle="--", linewidth=1, label=f"mean: {mean:.1%}")
        _share_axis(axis, "IoU", [name for name, _ in part], ylim=(rows - 0.5, -0.5))
    figure.legend(*axis.get_legend_handles_labels(), loc="outside lower right", frameon=False)
    _save(figure, path, title)


def _reduced(item: Segmented) -> Segmented:
    """An image and its labels in the size of a sheet."""
    image = item.image.copy()
    image.thumbnail((SHEET_SIDE, SHEET_SIDE))
    height, width = item.truth.shape
    rows = np.arange(image.height) * height // image.height
    columns = np.arange(image.width) * width // image.width
    return Segmented(image, item.truth[np.ix_(rows, columns)], item.predicted[np.ix_(rows, columns)])


def _aspect(image: Image.Image) -> float:
    return image.height / image.width


def _legend(
    figure: "Figure", labels: Labels, classes: Sequence[str], place: LegendPlace, columns: int
) -> None:
    """Name the classes of these labels, the largest ones where there are many."""
    from matplotlib.patches import Patch

    found, counts = np.unique(labels[(labels >= 0) & (labels < len(classes))], return_counts=True)
    chosen = sorted(found[counts.argsort()[::-1][:LONGEST_LEGEND]].tolist())
    colours = palette(len(classes)) / 255
    patches = [Patch(color=tuple(colours[i])) for i in chosen]
    names = [_short(classes[i]) for i in chosen]
    if len(found) > len(chosen):
        patches.append(Patch(color="none"))
        names.append(f"and {len(found) - len(chosen)} more")
    _add_legend(figure, patches, names, loc=place, ncols=columns, fontsize=9)
