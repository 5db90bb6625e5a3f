import random

import numpy as np
import pytest
from matplotlib.text import Text

from tests.hostile import NAMES
from tests.pictures.ink import ink
from v2m.pictures import speed
from v2m.pictures.colours import BLUE, ORANGE
from v2m.pictures.speed import SpeedPanel, SpeedPoint, plot_speed


def cloud(count):
    """Points that are as crowded as models are: speed falls with size."""
    numbers = random.Random(0)
    sizes = [10 ** numbers.uniform(6, 7.7) for _ in range(count)]
    return [
        SpeedPoint(f"a model {i}", size, 1e9 / size * numbers.uniform(0.5, 1), i % 3 == 0)
        for i, size in enumerate(sizes)
    ]


def test_a_picture_of_nothing(tmp_path):
    with pytest.raises(ValueError, match="nothing was timed"):
        plot_speed([SpeedPanel("inference", [])], tmp_path / "plot.png", "a title")


def test_ours_have_a_colour_of_their_own(tmp_path):
    path = tmp_path / "new" / "plot.png"
    plot_speed([SpeedPanel("inference", cloud(3)), SpeedPanel("nothing", [])], path, "a title")
    share, colours = ink(path)
    assert share > 0.01
    for colour in (BLUE, ORANGE):
        assert tuple(bytes.fromhex(colour[1:])) in colours


def test_names_lie_neither_on_each_other_nor_on_points(tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(speed, "save_figure", lambda figure, path: drawn.append(figure))
    points = cloud(32)
    plot_speed([SpeedPanel("inference", points), SpeedPanel("training", points)], tmp_path / "p.png", "title")
    (figure,) = drawn
    for axis in figure.axes:
        names = [text for text in axis.texts if isinstance(text, Text)]
        assert {text.get_text() for text in names} == {point.name for point in points}
        boxes = [text.get_window_extent() for text in names]
        for i, box in enumerate(boxes):
            assert not any(box.overlaps(other) for other in boxes[:i]), names[i]
            assert axis.bbox.x0 <= box.x0 < box.x1 <= axis.bbox.x1
        places = axis.transData.transform([(p.parameters / 1e6, p.images_per_s) for p in points])
        inside = [(box.x0 < x < box.x1) and (box.y0 < y < box.y1) for box in boxes for x, y in places]
        assert not np.any(inside)


@pytest.mark.filterwarnings("error")
def test_names_of_any_letters_are_drawn(tmp_path):
    points = [SpeedPoint(name, 1e6 * (i + 1), 10.0 * (i + 1), False) for i, name in enumerate(NAMES.values())]
    plot_speed([SpeedPanel("inference", points)], tmp_path / "plot.png", "".join(NAMES.values()))
    assert ink(tmp_path / "plot.png")[0] > 0.005
