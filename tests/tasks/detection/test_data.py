import json

import numpy as np
import pytest
import torch
from PIL import Image

from tests.tasks.detection.coco import write_coco
from v2m.data.coco.dataset import Objects
from v2m.system.errors import DataError
from v2m.tasks.detection.config import AugmentConfig, InputConfig
from v2m.tasks.detection.data import (
    TrainTransform,
    image_size,
    keep_size,
    open_data,
    resolve_input,
    to_tensor,
)

MEAN = (0.5, 0.25, 0.75)
INPUT = InputConfig((40,), 100, 40, MEAN, (0.2,) * 3)


def scene(height=60, width=90, boxes=((10, 20, 40, 50), (50, 5, 80, 30)), crowd=None, masks=True):
    """White rectangles on black, which are their own masks."""
    pixels = np.zeros((height, width, 3), np.uint8)
    drawn = torch.zeros(len(boxes), height, width, dtype=torch.uint8)
    for mask, (left, top, right, bottom) in zip(drawn, boxes, strict=True):
        mask[top:bottom, left:right] = 1
        pixels[top:bottom, left:right] = 255
    corners = torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4)
    objects = Objects(
        corners,
        torch.arange(len(boxes)),
        drawn if masks else None,
        torch.tensor(crowd or [False] * len(boxes), dtype=torch.bool),
        torch.ones(len(boxes)),
    )
    return Image.fromarray(pixels), objects


def extent(mask):
    rows, columns = mask.nonzero().unbind(1)
    return [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]


@pytest.mark.parametrize(
    "augment",
    [
        AugmentConfig(),
        AugmentConfig(hflip=1.0),
        AugmentConfig((0.5, 1.0), 80),
        AugmentConfig((1.0, 2.0), 50),
        AugmentConfig((0.4, 0.5), 90),
    ],
)
def test_boxes_masks_and_pixels_stay_together(augment):
    transform = TrainTransform(INPUT, augment)
    for _ in range(20):
        image, target = transform(*scene())
        assert type(image) is type(target["boxes"]) is type(target["masks"]) is torch.Tensor
        assert image.dtype == torch.float32
        assert 0 <= image.min() <= image.max() <= 1
        height, width = image.shape[1:]
        assert (height, width) == ((augment.crop_size,) * 2 if augment.jitter else (40, 60))
        assert len(target["boxes"]) == len(target["labels"]) == len(target["masks"])
        assert target["masks"].shape[1:] == (height, width)
        for box, mask in zip(target["boxes"], target["masks"], strict=True):
            assert (box[2:] - box[:2]).min() >= 1
            assert box.min() >= 0
            assert (box[2:] <= torch.tensor([width, height])).all()
            torch.testing.assert_close(torch.stack(extent(mask)).float(), box, rtol=0, atol=1.1)
        if target["masks"].any():
            inside = target["masks"].amax(0).bool()
            assert image[:, inside].mean() > 0.8


def test_mirroring():
    plain, target = TrainTransform(INPUT, AugmentConfig(hflip=0.0))(*scene())
    mirrored, other = TrainTransform(INPUT, AugmentConfig(hflip=1.0))(*scene())
    assert torch.equal(plain.flip(2), mirrored)
    assert torch.equal(target["masks"].flip(2), other["masks"])
    torch.testing.assert_close(other["boxes"][:, 0], 60 - target["boxes"][:, 2])
    assert torch.equal(target["boxes"][:, 1], other["boxes"][:, 1])


def test_padding_of_a_crop_is_the_mean():
    image, _ = TrainTransform(INPUT, AugmentConfig((0.3, 0.3), 100))(*scene(boxes=()))
    padding = image[:, image[0] > 0]
    assert padding.shape[1] > 5000
    torch.testing.assert_close(padding.mean(1), torch.tensor(MEAN), rtol=0, atol=2 / 255)


def test_several_sizes_are_drawn_and_the_longer_side_has_an_end():
    transform = TrainTransform(InputConfig((20, 30, 40), 50, 40, MEAN, MEAN), AugmentConfig())
    sizes = {tuple(transform(*scene())[0].shape[1:]) for _ in range(40)}
    assert sizes == {(20, 30), (30, 45), (33, 50)}


def test_crowds_are_not_learnt():
    _, target = TrainTransform(INPUT, AugmentConfig())(*scene(crowd=[False, True]))
    assert target["labels"].tolist() == [0]
    _, target = TrainTransform(INPUT, AugmentConfig())(*scene(crowd=[True, True]))
    assert target["boxes"].shape == (0, 4)
    assert target["masks"].shape == (0, 40, 60)


@pytest.mark.parametrize("augment", [AugmentConfig(), AugmentConfig((0.1, 2.0), 32)])
@pytest.mark.parametrize("masks", [True, False])
def test_images_without_objects_are_kept(augment, masks):
    _, target = TrainTransform(INPUT, augment)(*scene(boxes=(), masks=masks))
    assert target["boxes"].shape == (0, 4)
    assert target["labels"].shape == (0,)
    assert target["labels"].dtype == torch.int64
    assert ("masks" in target) == masks


def test_objects_that_are_no_longer_seen_are_left_out():
    """A box of a ring reaches into the crop, its mask does not."""
    image, objects = scene(200, 200, [(0, 0, 200, 200)])
    objects.masks.zero_()
    objects.masks[:, :4] = objects.masks[:, -4:] = 1
    transform = TrainTransform(INPUT, AugmentConfig((2.0, 2.0), 50))
    counts = {len(transform(image, objects)[1]["labels"]) for _ in range(60)}
    assert counts == {0, 1}


def test_narrow_images_keep_a_pixel():
    image, _ = TrainTransform(INPUT, AugmentConfig((0.1, 0.1), 64))(*scene(3, 300, [(0, 0, 300, 3)]))
    assert image.shape == (3, 64, 64)


def test_randomness_is_that_of_the_generator():
    transform = TrainTransform(INPUT, AugmentConfig((0.1, 2.0), 48))
    images = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        images.append(transform(*scene())[0])
    assert torch.equal(images[0], images[1])
    assert not torch.equal(images[0], images[2])


def test_evaluation_keeps_size_and_masks():
    image, objects = scene()
    pixels, masks = keep_size(image.convert("L"), objects)
    assert pixels.shape == (3, 60, 90)
    torch.testing.assert_close(pixels, to_tensor(image))
    assert masks is objects.masks


def test_mean_and_deviation_are_those_of_the_model():
    resolved = resolve_input(InputConfig(), "resnet18")
    assert resolved.mean == (0.485, 0.456, 0.406)
    assert resolve_input(InputConfig(std=(1.0, 2.0, 3.0)), "resnet18").std == (1.0, 2.0, 3.0)
    assert image_size(INPUT, AugmentConfig()) == (40, 40)
    assert image_size(INPUT, AugmentConfig((1, 2), 64)) == (64, 64)


def test_masks_are_there_if_they_are_wanted(tmp_path):
    boxes = str(write_coco(tmp_path / "boxes", dict(train=[(30, 40)] * 2, val=[(30, 40)]), masks=False))
    both = str(write_coco(tmp_path / "both", dict(train=[(30, 40)] * 2)))
    with pytest.raises(DataError, match=r"no segmentation.*--head.detector faster_rcnn"):
        open_data(boxes, "train", has_masks=True)
    assert open_data(boxes, "train", has_masks=False)[0][1].masks is None
    assert open_data(both, "train", has_masks=True)[0][1].masks is not None
    assert open_data(both, "train", has_masks=False)[0][1].masks is None


def test_there_are_objects(tmp_path):
    root = write_coco(tmp_path / "coco", dict(train=[(30, 40)] * 2, val=[(30, 40)]))
    path = root / "annotations" / "instances_val.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | dict(annotations=[])))
    with pytest.raises(DataError, match=r"instances_val.json has no objects"):
        open_data(str(root), "val", has_masks=True)


def change(root, split, spoil):
    """Change the annotations of a split."""
    path = root / "annotations" / f"instances_{split}.json"
    content = json.loads(path.read_text())
    spoil(content)
    path.write_text(json.dumps(content))


def flatten(content):
    """Give the first object a line for a mask."""
    content["annotations"][0]["segmentation"] = [[1, 2, 3, 4]]


def test_only_detectors_with_masks_look_at_masks(tmp_path):
    root = write_coco(tmp_path / "coco", dict(train=[(30, 40)] * 12))
    change(root, "train", flatten)
    count = open_data(str(root), "train", has_masks=False).count_objects()
    assert open_data(str(root), "train", has_masks=False, strict=True).warnings == []
    data = open_data(str(root), "train", has_masks=True)
    assert data.count_objects() == count - 1
    first, remedy = data.warnings
    assert f"json: 1 of {count} annotations are left out for their segmentation, the first: " in first
    assert remedy.endswith("give --head.detector faster_rcnn, which takes boxes alone")
    with pytest.raises(
        DataError, match=r"annotation 1 of image 101 .* has no polygon of three points or more$"
    ):
        open_data(str(root), "train", has_masks=True, strict=True)


def test_why_there_is_nothing_to_validate_on_is_said(tmp_path):
    root = write_coco(tmp_path / "coco", dict(val=[(30, 40)] * 2))
    change(root, "val", lambda content: [a.update(bbox=None) for a in content["annotations"]])
    with pytest.raises(DataError, match=r"has no objects; .* annotations are left out for their bbox, the"):
        open_data(str(root), "val", has_masks=False)
