"""A sheet of images with their annotations."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from v2m.analysis.plots import _figure, _name, _save, _short
from v2m.analysis.segments import LONGEST_LEGEND, palette

COLUMNS = 4


def plot_samples(pictures: Sequence[Any], names: Sequence[str], path: Path, title: str) -> None:
    """Draw pictures in rows, with the colours of the classes below.

    Args:
        pictures: Images, or pixels ``[H, W, 3]``, of any sizes.
        names: Names of the classes.
        path: PNG to write.
        title: Heading.
    """
    from matplotlib.patches import Patch

    columns = min(COLUMNS, max(1, len(pictures)))
    rows = math.ceil(len(pictures) / columns) or 1
    figure = _figure(3.2 * columns, 2.6 * rows + 1.2)
    axes = figure.subplots(rows, columns, squeeze=False)
    for axis in axes.ravel():
        axis.axis("off")
    for axis, picture in zip(axes.ravel(), pictures, strict=False):
        axis.imshow(picture)
    shown = names[:LONGEST_LEGEND]
    patches = [Patch(color=tuple(colour)) for colour in palette(len(shown)) / 255]
    numbers = [str(number) for number in range(len(shown))]
    _name(
        figure.legend(patches, numbers, loc="outside lower center", ncols=6, frameon=False, fontsize=8),
        [*map(_short, shown)],
    )
    _save(figure, path, title)
