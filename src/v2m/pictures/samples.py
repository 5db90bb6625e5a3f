"""A sheet of images with their annotations."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from v2m.pictures.plots import _add_legend, _figure, _save, _short
from v2m.pictures.segments import LONGEST_LEGEND, palette

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
    _add_legend(figure, patches, [*map(_short, shown)], loc="outside lower center", ncols=6, fontsize=8)
    _save(figure, path, title)
