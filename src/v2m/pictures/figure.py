"""What all pictures share: figures, their axes, names on them, and files.

matplotlib is imported where it draws, since it takes a second.
"""

import math
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from v2m.system.errors import shown
from v2m.system.files import replace_file
from v2m.system.names import figure_text, shortened

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

DOTS = 120
"""Pixels to an inch."""
MOST_BARS = 40
"""Names beside each other that can still be read."""
LONGEST_NAME = 24
LONGEST_LEGEND = 24
"""Classes in a legend."""
TITLE_LETTERS = 10
"""Letters of a heading to an inch."""


def new_figure(width: float, height: float) -> "Figure":
    """An empty figure of so many inches."""
    from matplotlib.figure import Figure  # not pyplot, which would choose a window system

    return Figure(figsize=(width, height), dpi=DOTS, layout="constrained")


def new_sheet(width: float, height: float, rows: int, columns: int) -> "tuple[Figure, list[Axes]]":
    """A figure of so many inches, and its cells for images, row by row."""
    figure = new_figure(width, height)
    cells = figure.subplots(rows, columns, squeeze=False).ravel().tolist()
    for cell in cells:
        cell.axis("off")
    return figure, cells


def new_paired_sheet(
    aspects: Sequence[float], titles: Sequence[str], size: tuple[float, float], margin: float
) -> "tuple[Figure, list[list[Axes]]]":
    """A figure with two images to a row, each drawn in several ways side by side.

    Args:
        aspects: Height over width of each image; neighbours should be alike, since a row is as high as its
            tallest image.
        titles: The ways to draw an image, written above the columns.
        size: Inches that a square image takes: in width, drawn in all ways, and in height.
        margin: Inches of height besides the images.

    Returns:
        The figure, and for each image its cells.
    """
    rows, pairs, ways = math.ceil(len(aspects) / 2), min(2, len(aspects)), len(titles)
    tallest = [max(aspects[2 * row : 2 * row + 2]) for row in range(rows)]
    width, height = size
    figure = new_figure(width * pairs, height * sum(tallest) + margin)
    grid = figure.subplots(rows, ways * pairs, squeeze=False, gridspec_kw=dict(height_ratios=tallest))
    for axis in grid.ravel():
        axis.axis("off")
    for column, axis in enumerate(grid[0]):
        axis.set_title(titles[column % ways], fontsize=10)
    cells = grid.reshape(-1, ways).tolist()
    return figure, cells[: len(aspects)]


def open_axis(axis: "Axes", grid: Literal["both", "x", "y"] = "both") -> None:
    """Draw faint lines of a grid, and no frame above or to the right."""
    axis.grid(alpha=0.3, axis=grid)
    axis.spines[["top", "right"]].set_visible(False)


def share_axis(axis: "Axes", label: str, names: Sequence[str], ylim: tuple[float, float]) -> None:
    """Make an axis ready for a horizontal bar with a share for each name."""
    axis.set(xlim=(0, 1.15), ylim=ylim, xlabel=label)
    axis.set_yticks(range(len(names)), map(short_name, names))
    axis.set_xticks([0, 0.25, 0.5, 0.75, 1])
    axis.xaxis.set_major_formatter("{x:.0%}")
    axis.set_axisbelow(True)
    open_axis(axis, "x")


def add_legend(owner: Any, handles: Sequence[Any], names: Sequence[str], **options: Any) -> None:
    """Give axes or a figure a legend of any names.

    matplotlib leaves out labels that begin with an underscore, so the names come after the legend is made.
    """
    numbers = [str(number) for number in range(len(handles))]
    legend = owner.legend(handles, numbers, frameon=False, **options)
    for text, name in zip(legend.get_texts(), names, strict=True):
        text.set_text(name)


def add_class_legend(figure: "Figure", colours: Any, names: Sequence[str], **options: Any) -> None:
    """Give a figure a legend of classes: a patch in the colour of each, 0..1."""
    from matplotlib.patches import Patch

    patches = [Patch(color=colour if isinstance(colour, str) else tuple(colour)) for colour in colours]
    add_legend(figure, patches, names, **options)


def short_name(name: str) -> str:
    """A name of a few letters, in which matplotlib finds no formula."""
    text = shown(name)
    return figure_text(text if len(text) <= LONGEST_NAME else f"{text[: LONGEST_NAME - 1]}…")


def heading(title: str, figure: "Figure") -> str:
    """A title of as many letters as there is room for."""
    return figure_text(shortened(shown(title), round(TITLE_LETTERS * figure.get_figwidth())))


def save_figure(figure: "Figure", path: Path, title: str = "") -> None:
    """Write a figure as a PNG, with a heading if it has one."""
    if title:
        figure.suptitle(heading(title, figure))
    options: dict[str, Any] = dict(format="png", facecolor="white")
    with names_as_letters(figure):
        replace_file(path, lambda partial: figure.savefig(partial, **options))


@contextmanager
def names_as_letters(figure: "Figure") -> Iterator[None]:
    """Let texts of a figure be drawn or measured inside, whatever is in them."""
    from matplotlib import rc_context
    from matplotlib.text import Text

    # A name must not be run as LaTeX, whatever a user has set.
    for text in figure.findobj(Text):
        text.set_usetex(False)  # type: ignore[attr-defined]
    with warnings.catch_warnings(), rc_context({"text.usetex": False}):
        warnings.filterwarnings("ignore", "Glyph .* missing from font")  # which is seen in the picture
        yield
