"""Annotations that are well formed, but cannot be meant as they are."""

import pytest

from tests.data.coco.made import HEIGHT, WIDTH, opening_fails, write
from tests.data.coco.made import content as content
from v2m.data.coco.open import open_coco


def lines(content, tmp_path, **options):
    data = open_coco(write(tmp_path, content), "train", **options)
    return [line.removeprefix(f"{data.source}: ") for line in data.warnings]


def mark(content, **fields):
    """Give all annotations some fields."""
    for annotation in content["annotations"]:
        annotation.update(fields)


@pytest.mark.parametrize("is_corners", [False, True])
def test_boxes_in_shares_of_the_image_are_an_error(content, tmp_path, is_corners):
    box = [0.25, 0.5, 0.75, 1.0] if is_corners else [0.25, 0.5, 0.5, 0.5]
    mark(content, bbox=box, segmentation=[])
    content["annotations"][1]["bbox"] = [0.125, 0.125, 0.25, 0.25]
    message = opening_fails(content, tmp_path)
    assert message.endswith(
        ": all 3 boxes end within two pixels of their images' corner, as if they were shares of the sides, "
        "expected left, top, width and height in pixels; the first: annotation 2 has bbox "
        "[0.125, 0.125, 0.25, 0.25]"
    )


def test_a_box_in_the_corner_is_one(content, tmp_path):
    content["annotations"][0]["bbox"] = [0, 0, 1, 1]
    content["annotations"][0]["segmentation"] = [[0, 0, 1, 0, 1, 1, 0, 1]]
    assert lines(content, tmp_path) == []


def test_boxes_that_fit_as_corners_are_told(content, tmp_path):
    mark(content, bbox=[5, 2, 20, 17], segmentation=[])
    content["annotations"][1]["bbox"] = [12, 6, 24, 15]
    (line,) = lines(content, tmp_path)
    assert line.startswith("1 of 3 boxes reach beyond their images and are cut, the first: annotation 2 of")
    assert line.endswith(
        "; all boxes fit when read as left, top, right and bottom, but COCO's are left, top, width and height"
    )


def test_boxes_that_do_not_fit_as_corners_either_are_not(content, tmp_path):
    mark(content, bbox=[12, 6, 24, 15], segmentation=[])
    content["annotations"][1]["bbox"] = [12, 6, 5, 8]
    (line,) = lines(content, tmp_path)
    assert line.endswith("reaches beyond its image")


@pytest.mark.parametrize("area", [0, 0.0, "0", None])
def test_no_area_is_that_of_the_box(content, tmp_path, area):
    content["annotations"][1]["area"] = area
    data = open_coco(write(tmp_path, content), "train")
    assert (data.warnings, data.objects(0).areas.tolist()) == ([], [15 * 15])


ROWS = dict(size=[HEIGHT, WIDTH], counts=[5 * WIDTH + 2, 4, WIDTH - 4, 4, (HEIGHT - 6) * WIDTH - 6])
"""Pixels 2 to 5 of rows 5 and 6, were runs to go along rows; they go down columns."""


@pytest.mark.parametrize(
    ("box", "mask", "spans"),
    [
        ([2, 5, 4, 6], ROWS, "[7, 2, 3, 14]"),
        ([10, 8, 8, 8], [[0.3, 0.4, 0.6, 0.4, 0.6, 0.8, 0.3, 0.8]], "[0, 0, 1, 1]"),
        ([10, 8, 8, 8], [[9, 9, 17, 9, 17, 17, 9, 17]], None),
        ([4, 4, 10, 8], [[110, 110, 120, 110, 120, 120]], "[0, 0, 0, 0]"),
        ([8, 6, 16, 13], [[8, 6, 16, 6, 16, 13, 8, 13]], "[8, 6, 8, 7]"),
        ([10, 8, 8, 8], dict(size=[HEIGHT, WIDTH], counts=[HEIGHT * WIDTH]), "[0, 0, 0, 0]"),
    ],
    ids=["row by row", "in shares", "moved a little", "outside", "box of corners", "no pixel"],
)
def test_masks_elsewhere_than_their_boxes_are_told(content, tmp_path, box, mask, spans):
    mark(content, bbox=box, segmentation=mask, iscrowd=0)
    expected = "2 of 2 masks that were looked at do not fit their boxes, the first: annotation 2 has bbox "
    content["annotations"].pop()
    found = [line for line in lines(content, tmp_path) if "masks" in line]
    if spans is None:
        assert found == []
        return
    (line,) = found
    assert line.startswith(f"{expected}{box}, its mask spans {spans}; ")
    assert not any("masks" in line for line in lines(content, tmp_path, masks=False))


def test_a_few_masks_that_do_not_fit_are_left_alone(content, tmp_path):
    plain = content["annotations"][1]
    odd = plain | dict(id=99, segmentation=[[25, 15, 29, 15, 29, 19]])
    content["annotations"] = [plain | dict(id=id) for id in range(30)] + [odd]
    assert not any("masks" in line for line in lines(content, tmp_path))


def test_objects_that_are_there_twice_are_told(content, tmp_path):
    first, second, _ = content["annotations"]
    other = first | dict(id=6, category_id=30)
    content["annotations"] = [first, second, first | dict(id=4), other, first | dict(id=5)]
    assert lines(content, tmp_path) == [
        "2 of 5 objects are there before, in the same image with the same class and box, the first is "
        "annotation 4; one object counts once"
    ]


def test_hardly_any_objects_twice_are_left_alone(content, tmp_path):
    first, second, _ = content["annotations"]
    content["annotations"] = [first | dict(id=100 + i, bbox=[2, 3, 26, 14 - i / 1000]) for i in range(200)]
    content["annotations"] += [second, second | dict(id=999)]
    assert lines(content, tmp_path) == []
