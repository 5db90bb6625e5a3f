import numpy as np
import pytest
from PIL import Image

from v2m.pictures.colours import palette
from v2m.pictures.samples import plot_samples


@pytest.mark.parametrize(("count", "classes"), [(0, 0), (1, 2), (9, 40)])
def test_pictures_and_the_colours_of_classes_are_drawn(tmp_path, count, classes):
    pictures = [np.full((30 + 5 * i, 40, 3), (255, 0, 255), np.uint8) for i in range(count)]
    plot_samples(pictures, [f"class {i}" for i in range(classes)], tmp_path / "samples.png", "Some")
    with Image.open(tmp_path / "samples.png") as image:
        pixels = np.asarray(image.convert("RGB"))
    assert ((pixels == (255, 0, 255)).all(-1).mean() > 0.05) == (count > 0)
    for colour in palette(classes)[:2]:
        assert (pixels == colour).all(-1).sum() > 50
