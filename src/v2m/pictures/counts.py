"""How many images there are of each class."""

from collections.abc import Mapping, Sequence
from itertools import cycle
from pathlib import Path

from v2m.pictures.colours import COLOURS, RED
from v2m.pictures.figure import MOST_BARS, heading, new_figure, open_axis, save_figure, short_name


def plot_classes(
    counts: Mapping[str, Mapping[str, int]], path: Path, title: str, what: str = "images"
) -> None:
    """Draw how many images there are of each class: bars, or for very many classes curves.

    Args:
        counts: For each split, the number of images of each class.
        path: PNG to write.
        title: Heading.
        what: What is counted, if not images.
    """
    names = list(dict.fromkeys(name for split in counts.values() for name in split))
    if len(names) <= MOST_BARS:
        _plot_bars(counts, names, path, title, what)
    else:
        _plot_curves(counts, names, path, title, what)


def _plot_bars(
    counts: Mapping[str, Mapping[str, int]], names: Sequence[str], path: Path, title: str, what: str
) -> None:
    """A panel per split with a bar per class, zeros in red."""
    figure = new_figure(3.2 + 3.2 * len(counts), 1.3 + 0.28 * len(names))
    axes = figure.subplots(1, len(counts), squeeze=False, sharey=True)[0]
    for axis, (split, images), colour in zip(axes, counts.items(), cycle(COLOURS)):
        values = [images.get(name, 0) for name in names]
        bars = axis.barh(range(len(names)), values, color=colour, height=0.75)
        labels = axis.bar_label(bars, [f"{value:,}" for value in values], padding=3, fontsize=8)
        for label, value in zip(labels, values, strict=True):
            label.set_color("black" if value else RED)
        axis.set(xlabel=what, title=f"{short_name(split)}: {sum(values):,}", ylim=(len(names) - 0.5, -0.5))
        axis.set_xlim(0, 1.18 * max(1, *values))  # room for the number beside the longest bar
        axis.set_yticks(range(len(names)), map(short_name, names))
        axis.xaxis.set_major_formatter("{x:,.0f}")
        axis.xaxis.get_major_locator().set_params(integer=True, nbins=5 if max(values) < 1e6 else 3)
        axis.set_axisbelow(True)
        open_axis(axis, "x")
    save_figure(figure, path, title)


def _plot_curves(
    counts: Mapping[str, Mapping[str, int]], names: Sequence[str], path: Path, title: str, what: str
) -> None:
    """A curve per split, the classes from the largest to the smallest, since their names have no room."""
    figure = new_figure(8, 4)
    axis = figure.subplots()
    for (split, images), colour in zip(counts.items(), cycle(COLOURS)):
        ordered = sorted((images.get(name, 0) for name in names), reverse=True)
        label = f"{short_name(split)}: {sum(ordered):,} {what}"
        axis.plot(range(1, len(ordered) + 1), ordered, color=colour, label=label, drawstyle="steps-mid")
    axis.set(xlabel="class, from the largest to the smallest", ylabel=what, title=heading(title, figure))
    axis.set_yscale("symlog", linthresh=1)  # logarithmic, but with room for 0
    axis.set_ylim(bottom=0)
    axis.yaxis.set_major_formatter("{x:,.0f}")
    open_axis(axis)
    axis.legend(frameon=False)
    save_figure(figure, path)
