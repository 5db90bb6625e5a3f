import numpy as np
import pytest
import torch
from PIL import Image

from v2m.data import read_image
from v2m.pictures.colours import palette
from v2m.pictures.objects import Drawn, draw_objects, plot_class_aps, plot_detections, plot_objects

NAMES = ("cat", "dog")


def image(height=60, width=100):
    return Image.fromarray(np.full((height, width, 3), 128, np.uint8))


def objects(masks=True):
    boxes = torch.tensor([[10.0, 10.0, 40.0, 50.0], [50.0, 20.0, 100.0, 60.0]])
    drawn = torch.zeros(2, 60, 100, dtype=torch.bool)
    drawn[0, 20:40, 15:35] = drawn[1, 30:50, 60:90] = True
    return Drawn(boxes, torch.tensor([1, 0]), ["dog 98%", "cat 51%"], drawn if masks else None)


NOTHING = Drawn(torch.zeros(0, 4), torch.zeros(0, dtype=torch.long), [], torch.zeros(0, 60, 100).bool())


def test_objects_have_the_colours_of_their_classes():
    picture = np.asarray(draw_objects(image(), objects()))
    assert picture.shape == (384, 640, 3)
    colours = palette(2).tolist()
    assert picture[100, int(6.4 * 10)].tolist() == colours[1]
    assert picture[200, int(6.4 * 50)].tolist() == colours[0]
    inside, outside = picture[int(6.4 * 30), int(6.4 * 25)], picture[int(6.4 * 5), int(6.4 * 80)]
    np.testing.assert_allclose(inside, 0.55 * 128 + 0.45 * np.array(colours[1]), atol=1.5)
    assert outside.tolist() == [128] * 3
    boxes_only = np.asarray(draw_objects(image(), objects(masks=False)))
    assert boxes_only[int(6.4 * 30), int(6.4 * 25)].tolist() == [128] * 3


def test_of_very_many_objects_the_last_are_drawn(monkeypatch):
    monkeypatch.setattr("v2m.pictures.objects.MOST_DRAWN", 1)
    two = Drawn(
        torch.tensor([[2, 2, 20, 20], [30, 30, 50, 50]]).float(), torch.tensor([0, 1]), ["a", "b"], None
    )
    last = Drawn(two.boxes[1:], two.labels[1:], ["b"], None)
    assert np.array_equal(*(np.asarray(draw_objects(image(), drawn)) for drawn in (two, last)))


def test_large_images_keep_their_size():
    assert draw_objects(image(500, 700), NOTHING).size == (700, 500)
    assert draw_objects(image(500, 700), NOTHING, 350).size == (350, 250)
    assert draw_objects(image(1, 5000), NOTHING, 100).size == (100, 1)


@pytest.mark.parametrize(
    "box",
    [[0.0, 0.0, 100.0, 60.0], [99.9, 59.9, 100.0, 60.0], [30.0, 30.0, 30.001, 30.0], [-5.0, 2.0, 300.0, 9.0]],
)
def test_boxes_at_the_edge_and_of_no_area_are_drawn(box):
    one = Drawn(torch.tensor([box]), torch.tensor([0]), ["cat"], None)
    picture = np.asarray(draw_objects(image(), one))
    assert (picture == palette(1)[0]).all(-1).any()


def test_pictures_are_written(tmp_path):
    plot_detections(image(), objects(), tmp_path / "one.png")
    plot_detections(image(), NOTHING, tmp_path / "none.png")
    triples = [
        (image(), objects(), NOTHING),
        (image(100, 60), NOTHING, NOTHING),
        (image(), NOTHING, objects()),
    ]
    plot_objects(triples, tmp_path / "sheet.png", "title")
    plot_objects(triples[:1], tmp_path / "single.png", "title")
    rows = [("cat", 0.5, 0.25), ("a very long name of a class of things", 1.0, 0.0), ("dog", None, None)]
    plot_class_aps(rows, True, tmp_path / "both.png", "title")
    plot_class_aps([(f"class {i}", i / 90, None) for i in range(90)], False, tmp_path / "boxes.png", "title")
    sizes = {path.name: read_image(path).size for path in tmp_path.iterdir()}
    assert len(sizes) == 6
    assert all(min(size) > 100 for size in sizes.values())
    assert sizes["one.png"] == (640, 384)
