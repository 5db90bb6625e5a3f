"""A sheet of images with their annotations."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from v2m.pictures.colours import palette
from v2m.pictures.figure import LONGEST_LEGEND, add_class_legend, new_sheet, save_figure, short_name

COLUMNS = 4


def plot_samples(pictures: Sequence[Any], names: Sequence[str], path: Path, title: str) -> None:
    """Draw pictures in rows, with the colours of the classes below.

    Args:
        pictures: Images, or pixels ``[H, W, 3]``, of any sizes.
        names: Names of the classes.
        path: PNG to write.
        title: Heading.
    """
    columns = min(COLUMNS, max(1, len(pictures)))
    rows = max(1, math.ceil(len(pictures) / columns))
    figure, cells = new_sheet(3.2 * columns, 2.6 * rows + 1.2, rows, columns)
    for axis, picture in zip(cells, pictures, strict=False):
        axis.imshow(picture)
    first = [short_name(name) for name in names[:LONGEST_LEGEND]]
    colours = palette(len(first)) / 255
    add_class_legend(figure, colours, first, loc="outside lower center", ncols=6, fontsize=8)
    save_figure(figure, path, title)
