import numpy as np
import pytest
from PIL import Image

from v2m.pictures.scaling import Panel, plot_scaling


def test_a_plot_of_nothing(tmp_path):
    with pytest.raises(ValueError, match="nothing was timed"):
        plot_scaling([Panel("forward", "ms", [("a", 4, None)])], "size", tmp_path / "plot.png", "a title")


def test_a_plot_draws_a_line_per_name(tmp_path):
    path = tmp_path / "new" / "plot.png"
    panels = [
        Panel(
            "forward",
            "ms",
            [("failed", 4, None), ("a", 4, 1.0), ("a", 8, 4.0), ("b", 4, 2.0), ("b", 8, None)],
        ),
        Panel("forward", "MB", [("a", 4, None), ("b", 8, None)]),
    ]
    plot_scaling(panels, "size", path, "a title")
    pixels = np.asarray(Image.open(path).convert("RGB"))
    height, width, _ = pixels.shape
    assert width < 1.5 * height, "the panel without values is left out"
    colours = {tuple(colour) for colour in np.unique(pixels.reshape(-1, 3), axis=0).tolist()}
    assert {(0x1F, 0x77, 0xB4), (0xFF, 0x7F, 0x0E), (0x2C, 0xA0, 0x2C)} <= colours
    assert [p.name for p in path.parent.iterdir()] == [path.name]
