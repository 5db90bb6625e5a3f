"""Results as tables, JSON and pictures."""

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from rich.table import Table

from v2m.benchmark.hardware import Hardware
from v2m.benchmark.timing import Timing
from v2m.system.errors import shown
from v2m.system.files import replace_file
from v2m.system.names import figure_text, shortened


class Row(Protocol):
    """A line of a result: a dataclass that can show itself."""

    def cells(self) -> dict[str, str]:
        """The row as text, by heading."""


def number(value: float | None, spec: str) -> str:
    """A number as text, or a dash where there is none."""
    return "-" if value is None else format(value, spec)


def timing_cells(timing: Timing | None) -> dict[str, str]:
    """Median and quartiles in milliseconds."""
    if timing is None:
        return {"ms": "-", "quartiles": "-"}
    digits = max(0, 2 - math.floor(math.log10(1e3 * timing.median)))
    median, low, high = (f"{1e3 * s:,.{digits}f}" for s in (timing.median, timing.low, timing.high))
    return {"ms": median, "quartiles": f"{low} to {high}"}


def table(rows: Sequence[Row]) -> Table:
    """The rows, names to the left and numbers to the right."""
    cells = [row.cells() for row in rows]
    shown = Table(*cells[0], box=None, header_style="bold")
    for column in shown.columns[1:]:
        column.justify = "right"
    for row in cells:
        shown.add_row(*row.values())
    return shown


def write_json(
    path: Path, topic: str, hardware: Hardware, settings: Mapping[str, Any], rows: Sequence[Any]
) -> None:
    """Write results: what was measured, on what, with which settings, and every row."""
    content = dict(
        topic=topic, hardware=asdict(hardware), settings=dict(settings), rows=[asdict(row) for row in rows]
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    replace_file(path, lambda partial: partial.write_text(json.dumps(content, indent=2) + "\n"))


def file_name(topic: str, hardware: Hardware, date: str) -> str:
    """``<topic>_<hardware>_<date>.json``, in letters that any file system takes."""
    machine = re.sub(r"[^a-z0-9]+", "-", hardware.name.lower()).strip("-")
    return f"{topic}_{machine}_{date}.json"


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
    from matplotlib.figure import Figure  # matplotlib takes a second
    from matplotlib.ticker import LogLocator

    panels = [panel for panel in panels if any(value for *_, value in panel.points)]
    if not panels:
        raise ValueError("plot: nothing was timed, so there is nothing to draw")
    columns = min(2, len(panels))
    rows = math.ceil(len(panels) / columns)
    figure = Figure(figsize=(4.4 * columns, 3.6 * rows + 0.6), dpi=120, layout="constrained")
    names = list(dict.fromkeys(name for panel in panels for name, *_ in panel.points))
    for i, panel in enumerate(panels):
        axis = figure.add_subplot(rows, columns, i + 1)
        for index, name in enumerate(names):
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
        axis.spines[["top", "right"]].set_visible(False)
    labels = [figure_text(shortened(shown(name), 60)) for name in names]
    figure.legend(figure.axes[0].lines, labels, loc="outside lower center", ncols=2, frameon=False)
    figure.suptitle(figure_text(title))
    path.parent.mkdir(parents=True, exist_ok=True)
    replace_file(path, lambda partial: figure.savefig(partial, format="png", facecolor="white"))
