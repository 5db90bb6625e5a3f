"""Pictures of a classifier's results: which class was taken for which, and images with their classes."""

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from v2m.pictures.colours import RED
from v2m.pictures.figure import MOST_BARS, heading, new_figure, new_sheet, save_figure, short_name


def plot_confusion_matrix(confusion: npt.ArrayLike, classes: Sequence[str], path: Path, title: str) -> None:
    """Draw how often each class was taken for each.

    Args:
        confusion: Counts ``[classes, classes]``: rows are the true class.
        classes: Names of the classes.
        path: PNG to write.
        title: Heading.
    """
    counts = np.asarray(confusion).astype(np.int64)
    names = [short_name(name) for name in classes]
    side = min(4.5 + 0.32 * len(names), 16)
    figure = new_figure(side + 0.8, side)
    axis = figure.subplots()
    # A class without images has a row of zeros.
    share = counts.astype(np.float32) / counts.sum(1, keepdims=True).clip(min=1).astype(np.float32)
    image = axis.imshow(share, cmap="Blues", vmin=0, vmax=1)
    axis.set(xlabel="predicted class", ylabel="true class", title=heading(title, figure))
    if len(names) <= MOST_BARS:
        are_letters = max(map(len, names)) <= 3
        axis.set_xticks(
            range(len(names)),
            names,
            rotation=0 if are_letters else 45,
            ha="center" if are_letters else "right",
        )
        axis.set_yticks(range(len(names)), names)
        for i, j in np.argwhere(counts).tolist():
            colour = "white" if share[i, j] > 0.5 else "black"
            axis.text(j, i, str(counts[i, j]), ha="center", va="center", color=colour, fontsize=8)
    figure.colorbar(image, ax=axis, format="{x:.0%}", shrink=0.8, label="share of the true class")
    save_figure(figure, path)


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
    rows = math.ceil(len(images) / columns)
    figure, cells = new_sheet(1.3 * columns, 1.65 * rows + 0.6, rows, columns)
    for axis, image, truth, predicted, probability in zip(
        cells, images, truths, predictions, probabilities, strict=False
    ):
        axis.imshow(image, cmap="gray" if image.mode in ("L", "1") else None, interpolation="nearest")
        is_right = predicted == truth
        caption = f"{short_name(predicted)}  {probability:.0%}"
        if not is_right:
            caption += f"\nis {short_name(truth)}"
        axis.set_title(caption, fontsize=9, color="black" if is_right else RED, pad=3)
    save_figure(figure, path, title)
