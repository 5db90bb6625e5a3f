"""Speed over size: a point for each model, with its name beside it."""

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from v2m.pictures.colours import BLUE, ORANGE
from v2m.pictures.figure import add_legend, heading, names_as_letters, new_figure, open_axis, save_figure
from v2m.system.errors import shown
from v2m.system.names import figure_text, shortened

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.transforms import Bbox

LONGEST_LABEL = 40
POINT = 5.0
"""Half the side of the square, in pixels, that a point keeps free of names."""
DISTANCES = (8, 16, 26, 38, 52, 70, 92, 118)
"""Pixels from a point to its name, the nearest first."""
CROWD, FAR = 80, 14
"""Pixels within which points crowd each other, and from which a line leads from a point to its name."""
ORANGE_INK = "#9c5700"
"""Orange that is dark enough for letters."""
DIRECTIONS = 16
"""Directions from a point in which a name may stand."""


class SpeedPoint(NamedTuple):
    """A model: its name, how many parameters it has, its images per second, and whether it is ours."""

    name: str
    parameters: float
    images_per_s: float
    is_ours: bool


class SpeedPanel(NamedTuple):
    """One graph of ``plot_speed``: its heading, and its models."""

    title: str
    points: Sequence[SpeedPoint]


def plot_speed(panels: Sequence[SpeedPanel], path: Path, title: str) -> None:
    """Draw images per second over parameters, both logarithmic, two panels to a row.

    Args:
        panels: The graphs; one without points is left out.
        path: PNG to write.
        title: Heading.

    Raises:
        ValueError: there are no points at all.
    """
    from matplotlib.ticker import LogLocator

    panels = [panel for panel in panels if panel.points]
    if not panels:
        raise ValueError("plot: nothing was timed, so there is nothing to draw")
    columns = min(2, len(panels))
    rows = math.ceil(len(panels) / columns)
    figure = new_figure(7.2 * columns, 5.6 * rows + 0.6)
    for i, panel in enumerate(panels):
        axis = figure.add_subplot(rows, columns, i + 1)
        for is_ours, colour, marker in ((False, BLUE, "o"), (True, ORANGE, "D")):
            points = [point for point in panel.points if point.is_ours is is_ours]
            xs, ys = [p.parameters / 1e6 for p in points], [p.images_per_s for p in points]
            axis.plot(xs, ys, linestyle="none", color=colour, marker=marker, markersize=5)
        axis.set(xscale="log", yscale="log", title=panel.title)
        axis.set(xlabel="parameters, millions", ylabel="images per second")
        axis.margins(0.14, 0.1)
        for scale in (axis.xaxis, axis.yaxis):
            scale.set_major_locator(LogLocator(subs=(1, 2, 5)))
            scale.set_major_formatter("{x:,g}")
            scale.set_minor_formatter("")
        open_axis(axis)
    add_legend(figure, figure.axes[0].lines, ["others", "this package"], loc="outside lower center", ncols=2)
    # Names are placed in pixels, so what is around them comes first.
    figure.suptitle(heading(title, figure))
    with names_as_letters(figure):
        figure.draw_without_rendering()
        figure.set_layout_engine("none")
        for axis, panel in zip(figure.axes, panels, strict=True):
            _place_names(axis, panel.points)
    path.parent.mkdir(parents=True, exist_ok=True)
    save_figure(figure, path)


def _place_names(axis: "Axes", points: Sequence[SpeedPoint]) -> None:
    """Write each name as near to its point as there is room, with a line to it where that is far."""
    from matplotlib.transforms import Bbox, IdentityTransform

    pixels = IdentityTransform()
    centres = [axis.transData.transform((p.parameters / 1e6, p.images_per_s)) for p in points]
    taken = [Bbox.from_bounds(x - POINT, y - POINT, 2 * POINT, 2 * POINT) for x, y in centres]
    # Names of points in a crowd go first: they have the fewest places.
    crowd = [sum(math.dist(one, other) < CROWD for other in centres) for one in centres]
    for i in sorted(range(len(points)), key=crowd.__getitem__, reverse=True):
        label = figure_text(shortened(shown(points[i].name), LONGEST_LABEL))
        colour = ORANGE_INK if points[i].is_ours else "black"
        text = axis.text(0, 0, label, fontsize=7.5, color=colour, transform=pixels)
        x, y = centres[i]
        places = list(_places(x, y, text.get_window_extent()))
        costs = [_cost(box, distance, taken, axis.bbox) for distance, box in places]
        _, box = places[costs.index(min(costs))]
        text.set_position(box[:2])
        taken.append(Bbox.from_bounds(*box))
        # To the nearest place of the name, which may be its middle or a corner.
        end = [min(max(at, low), low + size) for at, low, size in zip((x, y), box[:2], box[2:], strict=True)]
        if math.dist(end, (x, y)) > FAR:
            axis.plot(*zip((x, y), end, strict=True), color="grey", linewidth=0.6, transform=pixels, zorder=1)


def _places(x: float, y: float, size: "Bbox") -> Iterator[tuple[int, tuple[float, float, float, float]]]:
    """Where a name of a size may stand beside a point: the distance, and left, bottom, width and height."""
    for distance in DISTANCES:
        for step in range(DIRECTIONS):
            angle = 2 * math.pi * step / DIRECTIONS
            across, up = math.cos(angle), math.sin(angle)
            # The side of the name that looks at the point is at the distance.
            left = x + distance * across + size.width * (across - 1) / 2
            bottom = y + distance * up + size.height * (up - 1) / 2
            yield distance, (left, bottom, size.width, size.height)


def _cost(
    place: tuple[float, float, float, float], distance: int, taken: Sequence["Bbox"], frame: "Bbox"
) -> float:
    """How bad a place is: far, over something else, or out of the frame."""
    left, bottom, width, height = place
    covered = sum(
        max(0.0, min(left + width, box.x1) - max(left, box.x0))
        * max(0.0, min(bottom + height, box.y1) - max(bottom, box.y0))
        for box in taken
    )
    outside = max(0.0, frame.x0 - left) + max(0.0, left + width - frame.x1)
    outside += max(0.0, frame.y0 - bottom) + max(0.0, bottom + height - frame.y1)
    return distance + 100 * covered + 100 * outside
