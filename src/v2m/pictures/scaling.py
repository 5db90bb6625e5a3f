"""Measurements over sizes."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from v2m.pictures.figure import add_legend, new_figure, open_axis, save_figure
from v2m.system.errors import shown
from v2m.system.names import figure_text, shortened

LONGEST_LABEL = 60


class Panel(NamedTuple):
    """One graph of ``plot_scaling``: heading, unit, and points of a name, a size and a value if any."""

    title: str
    unit: str
    points: Sequence[tuple[str, float, float | None]]


def plot_scaling(panels: Sequence[Panel], size: str, path: Path, title: str) -> None:
    """Draw values over sizes, both logarithmic, so that a power law is a straight line.

    Args:
        panels: The graphs, side by side; one without values is left out.
        size: What the sizes are, with their unit.
        path: PNG to write.
        title: Heading.

    Raises:
        ValueError: there are no values at all.
    """
    from matplotlib.ticker import LogLocator

    panels = [panel for panel in panels if any(value for *_, value in panel.points)]
    if not panels:
        raise ValueError("plot: nothing was timed, so there is nothing to draw")
    columns = min(2, len(panels))
    rows = math.ceil(len(panels) / columns)
    figure = new_figure(4.4 * columns, 3.6 * rows + 0.6)
    names = list(dict.fromkeys(name for panel in panels for name, *_ in panel.points))
    for i, panel in enumerate(panels):
        axis = figure.add_subplot(rows, columns, i + 1)
        for index, name in enumerate(names):  # a name has a line everywhere, if without points: one colour
            points = sorted((x, y) for known, x, y in panel.points if known == name and y)
            xs, ys = [x for x, _ in points], [y for _, y in points]
            axis.plot(xs, ys, color=f"C{index}", marker="o", markersize=4)
        sizes = sorted({x for _, x, _ in panel.points})
        axis.set(xscale="log", yscale="log", title=panel.title, xlabel=size, ylabel=panel.unit)
        axis.set_xticks(sizes, [f"{x:g}" for x in sizes])
        axis.set_xticks([], minor=True)
        axis.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.yaxis.set_major_formatter("{x:,g}")
        axis.yaxis.set_minor_formatter("")
        axis.grid(alpha=0.3, which="both")
        open_axis(axis)
    labels = [figure_text(shortened(shown(name), LONGEST_LABEL)) for name in names]
    add_legend(figure, figure.axes[0].lines, labels, loc="outside lower center", ncols=2)
    path.parent.mkdir(parents=True, exist_ok=True)
    save_figure(figure, path, title)
