"""Pictures of labels over images."""

import numpy as np
import pytest
from PIL import Image

from v2m.pictures.colours import palette
from v2m.pictures.segments import Segmented, overlay, plot_class_ious, plot_overlay, plot_segments


def scene(height, width, classes):
    generator = np.random.default_rng(0)
    image = Image.fromarray(generator.integers(0, 255, (height, width, 3), dtype=np.uint8))
    truth = generator.integers(0, classes, (height, width))
    truth[:2] = 255
    return Segmented(image, truth, np.zeros((height, width), np.uint8))


def is_picture(path):
    with Image.open(path) as image:
        return image.format == "PNG" and min(image.size) > 100


def test_colours_differ_and_do_not_depend_on_the_number():
    colours = palette(150)
    assert len(np.unique(colours, axis=0)) == 150
    assert np.array_equal(palette(7), colours[:7])


def test_overlay_leaves_pixels_without_a_label():
    item = scene(8, 9, 3)
    shown = overlay(item.image, item.truth, 3)
    gray = np.asarray(item.image.convert("L"))
    assert np.array_equal(shown[:2], np.repeat(gray[:2, :, None], 3, axis=2))
    expected = 0.4 * np.repeat(gray[2:, :, None], 3, axis=2) + 0.6 * palette(3)[item.truth[2:]]
    assert np.abs(shown[2:] - expected).max() <= 0.51


@pytest.mark.parametrize("count", [1, 3])
def test_sheet(tmp_path, count):
    items = [scene(40 + 400 * i, 30 + 50 * i, 3) for i in range(count)]
    plot_segments(items, ["a", "b", "c"], tmp_path / "sheet.png", "title")
    assert is_picture(tmp_path / "sheet.png")


@pytest.mark.parametrize("classes", [2, 60])
def test_one_image(tmp_path, classes):
    item = scene(20, 300, classes)
    names = [f"class {i} with quite a long name" for i in range(classes)]
    plot_overlay(item.image, item.truth, names, tmp_path / "image.png")
    assert is_picture(tmp_path / "image.png")


@pytest.mark.parametrize("count", [2, 150])
def test_bars(tmp_path, count):
    ious = [(f"class {i}", i / count if i else None) for i in range(count)]
    plot_class_ious(ious, 0.5, tmp_path / "bars.png", "title")
    assert is_picture(tmp_path / "bars.png")
