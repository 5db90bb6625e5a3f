"""A small file in COCO format."""

import json

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as oracle

from v2m.data.coco.open import open_coco
from v2m.system.errors import DataError

HEIGHT, WIDTH = 20, 30
BLOB = (np.add.outer((np.arange(HEIGHT) - 9) ** 2, (np.arange(WIDTH) - 12) ** 2) < 50).astype(np.uint8)


def runs(mask):
    """Run lengths of a mask, down its columns, from zeros on."""
    lengths, last = [0], 0
    for value in mask.T.ravel().tolist():
        if value != last:
            lengths.append(0)
        lengths[-1] += 1
        last = value
    return lengths


def compressed(mask):
    encoded = oracle.encode(np.asfortranarray(mask))
    return dict(size=[HEIGHT, WIDTH], counts=encoded["counts"].decode())


POLYGONS = [[2, 3, 12.5, 3, 12.5, 15.25, 2, 11], [20, 5, 28, 5, 24, 17]]
RUNS = dict(size=[HEIGHT, WIDTH], counts=runs(BLOB))


@pytest.fixture
def content():
    """Three images, of which the second has no objects, and three objects, those of an image not in a row."""
    images = [dict(id=i, file_name=f"{i}.png", height=HEIGHT, width=WIDTH) for i in (7, 5, 9)]
    categories = [dict(id=30, name="cat"), dict(id=10, name="dog")]
    annotations = [
        dict(
            id=1, image_id=9, category_id=10, bbox=[2, 3, 26, 14], area=90.5, iscrowd=0, segmentation=POLYGONS
        ),
        dict(id=2, image_id=7, category_id=30, bbox=[5, 2, 15, 15], segmentation=compressed(BLOB)),
        dict(id=3, image_id=9, category_id=30, bbox=[5, 2.25, 15, 15], area=7, iscrowd=1, segmentation=RUNS),
    ]
    return dict(images=images, categories=categories, annotations=annotations)


def write(root, content, annotations="annotations/instances_train.json", images="train"):
    """Write the content, and the images that it names."""
    for path in (root / annotations, root / images / "x"):
        path.parent.mkdir(parents=True, exist_ok=True)
    (root / annotations).write_text(json.dumps(content))
    for i, image in enumerate(content["images"]):
        pixels = np.full((HEIGHT, WIDTH, 3), 5 * i, np.uint8)
        Image.fromarray(pixels).save(root / images / image["file_name"])
    return str(root)


GONE = "(gone)"
"""A value in place of which there is nothing."""


def changed(record, change):
    """A record with changes."""
    return {key: value for key, value in (record | change).items() if value is not GONE}


def opening_fails(content, root, **options):
    """The message, which is one line."""
    there = [dict(file_name=f"{i}.png") for i in (7, 5, 9)]
    source = write(root, content | dict(images=there))
    path = root / "annotations" / "instances_train.json"
    path.write_text(json.dumps(content))
    with pytest.raises(DataError) as caught:
        open_coco(source, "train", **options)
    message = str(caught.value)
    assert message.startswith(f"data: {path}")
    assert "\n" not in message
    return message


def warnings(content, root, **options):
    """What is said when it is opened, without the name of the file."""
    data = open_coco(write(root, content), "train", **options)
    assert all(line.startswith(f"{data.source}: ") for line in data.warnings)
    return [line.removeprefix(f"{data.source}: ") for line in data.warnings]
