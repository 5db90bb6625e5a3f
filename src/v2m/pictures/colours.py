"""Colours of lines, bars and classes."""

import colorsys

import numpy as np
import numpy.typing as npt

BLUE, ORANGE, RED = "#2166ac", "#e08214", "#c0392b"
COLOURS = (BLUE, ORANGE, "#4d9221", "#8073ac")
"""Of lines or bars beside each other."""
GOLDEN_RATIO = 0.618034


def palette(count: int) -> npt.NDArray[np.uint8]:
    """Colours ``[count, 3]`` of classes. A class keeps its colour, however many there are."""
    from matplotlib import colormaps

    pairs = np.asarray(colormaps["tab20"].colors)  # type: ignore[attr-defined]
    first = np.concatenate([pairs[::2], pairs[1::2]])  # the strong colours before their pale partners
    # Steps of the golden ratio never come near a hue that was there before.
    others = [
        colorsys.hsv_to_rgb(i * GOLDEN_RATIO % 1, (0.9, 0.55)[i % 2], (0.95, 0.7, 0.5)[i % 3])
        for i in range(max(0, count - len(first)))
    ]
    colours = np.concatenate([first, np.reshape(others, (-1, 3))])[:count]
    return (255 * colours).round().astype(np.uint8)
