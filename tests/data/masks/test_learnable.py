"""Masks with little to learn from: said when they are opened."""

import numpy as np
import pytest
from PIL import Image

from tests.data.masks.test_dataset import write_image, write_mask
from v2m.data.masks.learnable import SAMPLE, check_labels, count_labels
from v2m.data.masks.open import open_masks
from v2m.system.errors import DataError

CAR = np.array([[0, 0, 255], [0, 255, 0]], np.uint8)
"""A mask as many editors write it: 0 for the ground, 255 for what is on it."""


def write_pair(root, name, labels):
    write_image(root / "images" / "train" / f"{name}.png", *labels.shape)
    write_mask(root / "masks" / "train" / f"{name}.png", labels)


def write_masks(root, *masks, classes=("ground", "car")):
    (root / "classes.txt").write_text("\n".join(classes) + "\n")
    for number, labels in enumerate(masks):
        write_pair(root, f"{number:04}", labels)
    return str(root)


def lines(data, is_training=True):
    said = []
    check_labels(data, is_training, said.append)
    return said


def test_masks_of_0_and_255_leave_nothing_to_learn(tmp_path):
    source = write_masks(tmp_path, CAR, CAR)
    with pytest.raises(DataError) as error:
        lines(open_masks(source, "train"))
    assert str(error.value) == (
        f"data: every labelled pixel of the masks of {source}/images/train (2 in all) is of the class "
        "ground, so there is nothing to learn; 33.3% of the pixels are 255, which does not count: if that "
        "is the class car, give --input.label_map '{255: 1}'"
    )
    data = open_masks(source, "train", label_map={255: 1})
    assert lines(data) == []
    assert count_labels(data).classes.tolist() == [8, 4]


def test_one_class_to_validate_on_is_said(tmp_path):
    (line,) = lines(open_masks(write_masks(tmp_path, CAR), "train"), is_training=False)
    assert "have no pixel of the classes car: scores say nothing of them; 33.3% of the pixels are 255" in line


def test_a_class_without_a_pixel_is_named(tmp_path):
    labels = np.array([[0, 2, 0]] * 2, np.uint8)
    source = write_masks(tmp_path, labels, classes=("sky", "sea", "sand"))
    assert lines(open_masks(source, "train")) == [
        f"the masks of {source}/images/train (1 in all) have no pixel of the classes sea: "
        "they cannot be learned"
    ]


@pytest.mark.parametrize("is_training", [True, False])
def test_no_label_at_all(tmp_path, is_training):
    source = write_masks(tmp_path, np.full((2, 3), 255, np.uint8))
    with pytest.raises(
        DataError, match=r"no pixel of the masks of .* has a label; 100\.0% of the pixels are 255"
    ):
        lines(open_masks(source, "train"), is_training)


def test_nearly_no_label_is_said(tmp_path):
    labels = np.full((2, 300), 255, np.uint8)
    labels[0, :2] = 0, 1
    (line,) = lines(open_masks(write_masks(tmp_path, labels), "train"))
    assert line.endswith("have a label for 0.33% of their pixels only")


def test_masks_that_all_have_labels_of_no_class(tmp_path):
    source = write_masks(tmp_path, CAR // 255 * 128)
    with pytest.raises(
        DataError, match=r"none of the masks .* the first is .*label 128 is .*--input\.label_map"
    ):
        lines(open_masks(source, "train"))
    write_pair(tmp_path, "0001", CAR // 255)
    assert lines(open_masks(source, "train")) == []


def test_a_sample_is_looked_at_of_many_masks(tmp_path):
    """Rare classes may be in other masks; where less than two classes are seen, all masks are looked at."""
    rare, usual = np.array([[0, 1, 2]], np.uint8), np.array([[0, 1, 0]], np.uint8)
    masks = [usual] * (2 * SAMPLE)
    masks[1] = rare  # every second one is looked at
    data = open_masks(write_masks(tmp_path, *masks, classes=("sky", "sea", "sand")), "train")
    assert count_labels(data).masks == SAMPLE
    assert lines(data) == []
    empty = np.zeros((1, 3), np.uint8)
    masks = [empty] * (2 * SAMPLE)
    for number in range(len(masks)):
        write_pair(tmp_path, f"{number:04}", empty)
    write_pair(tmp_path, f"{len(masks) - 1:04}", rare)
    assert count_labels(data).classes.tolist() == [3 * len(masks) - 2, 1, 1]


COLOURS = dict(ground=(0, 0, 0), car=(128, 0, 0), road=(0, 128, 0))


def write_coloured(root, *palettes, labels=((0, 1, 2), (2, 1, 0))):
    """Masks of the same places in their palettes, which are lists of colours."""
    source = write_masks(root, *[np.array(labels, np.uint8)] * len(palettes), classes=[*COLOURS])
    for number, palette in enumerate(palettes):
        mask = Image.fromarray(np.array(labels, np.uint8)).convert("P")
        mask.putpalette([channel for name in palette for channel in COLOURS[name]])
        mask.save(root / "masks" / "train" / f"{number:04}.png")
    return source


def test_places_in_palettes_that_differ_are_told(tmp_path):
    source = write_coloured(tmp_path, COLOURS, COLOURS, ["ground", "road", "car"])
    assert lines(open_masks(source, "train")) == [
        f"the masks of {source}/images/train have palettes that differ: the value 1 is the colour "
        f"(128, 0, 0) in {source}/masks/train/0000.png, but (0, 128, 0) in {source}/masks/train/0002.png; "
        "values are taken for labels, whatever their colours"
    ]


@pytest.mark.parametrize("last", [["ground", "car"], ["ground", "car", "ground"]])
def test_colours_that_are_not_used_may_differ(tmp_path, last):
    source = write_coloured(tmp_path, COLOURS, last, labels=((0, 1, 1), (1, 1, 0)))
    assert not any("palettes" in line for line in lines(open_masks(source, "train")))


def test_palettes_that_a_mask_was_quantised_to_are_told(tmp_path):
    source = write_masks(tmp_path, *[np.array([[0, 1, 2]] * 3, np.uint8)] * 2, classes=[*COLOURS])
    for number, order in enumerate([[0, 0, 1, 2], [2, 2, 2, 1]]):
        colours = np.array([*COLOURS.values()], np.uint8)[[order[:3]] * 3]
        Image.fromarray(colours).quantize(3).save(tmp_path / "masks" / "train" / f"{number:04}.png")
    assert any("palettes that differ" in line for line in lines(open_masks(source, "train")))
