import copy
import json
import os
import pickle
import sys
from contextlib import redirect_stdout
from io import StringIO

import numpy as np
import pytest
import torch
from PIL import Image
from pycocotools import mask as oracle
from pycocotools.coco import COCO

from tests.data.coco.made import BLOB, GONE, HEIGHT, POLYGONS, WIDTH, changed, opening_fails, write
from tests.data.coco.made import content as content
from v2m.data.coco.open import open_coco
from v2m.data.errors import UnreadableImageError
from v2m.system.errors import DataError

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # pycocotools

SIZE = "expected at least 1, and at most 2,147,483,648 pixels"
TEXT = "expected text of at most 4096 letters"


def test_images_have_their_objects(content, tmp_path):
    data = open_coco(write(tmp_path, content), "train")
    assert (data.classes, data.category_ids, data.image_ids) == (["dog", "cat"], [10, 30], [7, 5, 9])
    assert (len(data), data.count_objects(), data.warnings) == (3, 3, [])
    assert (data.name(2), data.size(2)) == (str(tmp_path / "train" / "9.png"), (HEIGHT, WIDTH))
    assert data.source == str(tmp_path / "annotations" / "instances_train.json")
    image, objects = data[2]
    assert (image.size, image.getpixel((0, 0))) == ((WIDTH, HEIGHT), (10, 10, 10))
    assert objects.boxes.tolist() == [[2, 3, 28, 17], [5, 2.25, 20, 17.25]]
    assert objects.labels.tolist() == [0, 1]
    assert objects.crowd.tolist() == [False, True]
    assert objects.areas.tolist() == [90.5, 7]
    dtypes = [part.dtype for part in objects]
    assert dtypes == [torch.float32, torch.int64, torch.uint8, torch.bool, torch.float32]
    assert data.objects(0).areas.tolist() == [15 * 15]


def test_an_image_without_objects_is_kept(content, tmp_path):
    objects = open_coco(write(tmp_path, content), "train").objects(1)
    shapes = [tuple(part.shape) for part in objects]
    assert shapes == [(0, 4), (0,), (0, HEIGHT, WIDTH), (0,), (0,)]


def test_masks_are_those_of_pycocotools(content, tmp_path):
    data = open_coco(write(tmp_path, content), "train")
    merged = oracle.merge(oracle.frPyObjects(POLYGONS, HEIGHT, WIDTH))
    polygons, crowd = data.objects(2).masks.numpy()
    np.testing.assert_array_equal(polygons, oracle.decode(merged))
    np.testing.assert_array_equal(crowd, BLOB)
    np.testing.assert_array_equal(data.objects(0).masks.numpy(), BLOB[None])


def test_points_and_lines_among_polygons_have_no_pixels(content, tmp_path):
    content["annotations"][0]["segmentation"] = [*POLYGONS, [1, 1, 9, 9], []]
    data = open_coco(write(tmp_path, content), "train")
    merged = oracle.merge(oracle.frPyObjects(POLYGONS, HEIGHT, WIDTH))
    np.testing.assert_array_equal(data.objects(2).masks[0].numpy(), oracle.decode(merged))


@pytest.mark.parametrize("nothing", [None, [], [[]]])
def test_boxes_alone_are_enough(content, tmp_path, nothing):
    for annotation in content["annotations"]:
        annotation["segmentation"] = nothing
    data = open_coco(write(tmp_path, content), "train")
    assert (data.has_masks, data.objects(2).masks) == (False, None)
    assert "segmentation" not in data.ground_truth()["annotations"][0]


def test_masks_are_left_out_on_request_and_need_a_library(content, tmp_path, monkeypatch):
    data = open_coco(write(tmp_path, content), "train")
    for name in [name for name in sys.modules if name.startswith("faster_coco_eval")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "faster_coco_eval", None)
    with pytest.raises(ValueError, match=r"^masks need faster-coco-eval: pip install faster-coco-eval$"):
        data.objects(2)
    data.has_masks = False
    assert (data.objects(2).masks, len(data.objects(2).boxes)) == (None, 2)


def test_the_transform_gets_image_and_objects(content, tmp_path):
    data = open_coco(write(tmp_path, content), "train")
    data.transform = lambda image, objects: (image.size, objects.labels.tolist())
    assert data[2] == ((WIDTH, HEIGHT), [0, 1])


def test_it_goes_to_other_processes(content, tmp_path):
    data = open_coco(write(tmp_path, content), "train")
    copied = pickle.loads(pickle.dumps(data))
    for mine, theirs in zip(data.objects(2), copied.objects(2), strict=True):
        assert torch.equal(mine, theirs)


@pytest.mark.parametrize(
    ("split", "annotations", "images"),
    [
        ("train", "annotations/instances_train2017.json", "train2017"),
        ("train", "annotations/instances_train2017.json", "images/train2017"),
        ("train", "annotations/instances_train.json", "images/train"),
        ("train", "train/_annotations.coco.json", "train"),
        ("val", "annotations/instances_val2017.json", "val2017"),
        ("val", "annotations/instances_validation.json", "validation"),
        ("val", "valid/_annotations.coco.json", "valid"),
        ("val", "test/_annotations.coco.json", "test"),
    ],
)
def test_layouts(content, tmp_path, split, annotations, images):
    data = open_coco(write(tmp_path, content, annotations, images), split)
    assert data.source == str(tmp_path / annotations)
    assert data.read(2).size == (WIDTH, HEIGHT)


def test_validation_images_are_val_before_test(content, tmp_path):
    for name in ("train", "valid", "test"):
        source = write(tmp_path, content, f"{name}/_annotations.coco.json", name)
    assert open_coco(source, "val").source == str(tmp_path / "valid" / "_annotations.coco.json")


@pytest.mark.parametrize("name", ["instances_trainer.json", "captions_train2017.json", "instances_train.txt"])
def test_nothing_else_is_taken_for_a_split(content, tmp_path, name):
    source = write(tmp_path, content, f"annotations/{name}")
    looked = r"annotations/instances_train\*.json nor train/_annotations.coco.json$"
    with pytest.raises(DataError, match=rf"^data: {source} has neither {looked}"):
        open_coco(source, "train")


def test_what_was_looked_for_is_said(content, tmp_path):
    source = write(tmp_path, content)
    with pytest.raises(
        DataError, match=r"instances_val\*.json nor .* \(nor those of validation, valid, test\)$"
    ):
        open_coco(source, "val")
    with pytest.raises(DataError, match=r"^data: /no/such/place is not a folder$"):
        open_coco("/no/such/place", "train")
    write(tmp_path, content, "annotations/instances_train2014.json")
    with pytest.raises(DataError, match=r"has instances_train.json, instances_train2014.json, expected one"):
        open_coco(source, "train")
    (tmp_path / "annotations" / "instances_train.json").unlink()
    with pytest.raises(DataError, match=r"no images, expected in .*/images/train2014/ nor .*/train2014/$"):
        open_coco(source, "train")


def test_labels_count_in_the_classes_that_are_given(content, tmp_path):
    source = write(tmp_path, content)
    data = open_coco(source, "train", classes=["cat", "dog"])
    assert (data.classes, data.category_ids) == (["cat", "dog"], [30, 10])
    assert data.objects(2).labels.tolist() == [1, 0]
    with pytest.raises(DataError, match=r"instances_train.json has .* \(unknown: dog; missing: cow, hen\)$"):
        open_coco(source, "train", classes=["cow", "cat", "hen"])


def test_categories_of_one_name_are_kept_apart_by_their_ids(content, tmp_path):
    content["categories"] = [dict(id=i, name="dog") for i in (30, 10)] + [dict(id=2, name="hen")]
    data = open_coco(write(tmp_path, content), "train")
    assert (data.classes, data.category_ids) == (["hen", "dog (10)", "dog (30)"], [2, 10, 30])
    assert data.objects(2).labels.tolist() == [1, 2]
    told, _ = data.warnings
    assert told.endswith("json: categories of one name are kept apart by their ids: dog (30), dog (10)")
    write(tmp_path, content, "annotations/instances_val.json", "val")
    assert open_coco(str(tmp_path), "val", data.classes).category_ids == [2, 10, 30]


def test_names_that_cannot_be_kept_apart_are_an_error(content, tmp_path):
    content["categories"] = [dict(id=i, name=name) for i, name in enumerate(("dog", "dog", "dog (1)"))]
    words = r"train.json has category names twice, and others that are like dog \(0\), dog \(1\)$"
    with pytest.raises(DataError, match=words):
        open_coco(write(tmp_path, content), "train")


def test_boxes_are_cut_at_the_edges_and_those_of_no_area_left_out(content, tmp_path):
    def box(id, *bbox, **more):
        return content["annotations"][0] | dict(id=id, bbox=bbox, image_id=5) | more

    content["annotations"] += [
        box(11, -4, 3, 10, 10),
        box(12, 25.5, 15, 10, 10, iscrowd=1),
        box(13, 4, 4, 0, 5),
        box(14, 4, 4, 5, -5, iscrowd=1),
        box(15, 31, 4, 5, 5, segmentation=None),
        box(16, 10, 10, 20.01, 10.01),
        box(17, 29.99999999, 4, 1e-9, 5),
    ]
    data = open_coco(write(tmp_path, content), "train", masks=False)
    beyond, empty = (line.removeprefix(f"{data.source}: ") for line in data.warnings)
    first = "the first: annotation 11 of image 5 (5.png) has bbox [-4, 3, 10, 10], which"
    assert beyond == f"2 of 10 boxes reach beyond their images and are cut, {first} reaches beyond its image"
    first = "the first: annotation 13 of image 5 (5.png) has bbox [4, 4, 0, 5], which"
    assert empty == f"4 of 10 annotations are left out for their bbox, {first} has no area in its image"
    assert data.objects(1).boxes.tolist() == [[0, 3, 6, 13], [25.5, 15, 30, 20], [10, 10, 30, 20]]
    assert data.objects(1).crowd.tolist() == [False, True, False]


def test_an_evaluator_gets_what_is_used(content, tmp_path):
    content["annotations"].append(content["annotations"][1] | dict(id=4, bbox=[-3, 0, 10.25, 8]))
    content["annotations"].append(content["annotations"][1] | dict(id=5, bbox=[40, 0, 10, 8]))
    given = copy.deepcopy(content["annotations"])
    data = open_coco(write(tmp_path, content), "train")
    truth = data.ground_truth()
    assert truth["images"] == content["images"]
    assert truth["categories"] == [dict(id=10, name="dog"), dict(id=30, name="cat")]
    assert [annotation["id"] for annotation in truth["annotations"]] == [2, 4, 1, 3]
    assert truth["annotations"][2:] == [given[0], given[2]]
    assert truth["annotations"][1]["bbox"] == [0, 0, 7.25, 8]
    assert truth["annotations"][0] == given[1] | dict(area=225, iscrowd=0)

    truth = json.loads(json.dumps(truth))
    with redirect_stdout(StringIO()):
        api = COCO()
        api.dataset = truth
        api.createIndex()
    for place in range(3):
        annotations = api.loadAnns(api.getAnnIds(imgIds=data.image_ids[place]))
        masks = [api.annToMask(annotation) for annotation in annotations]
        np.testing.assert_array_equal(
            data.objects(place).masks.numpy(), np.reshape(masks, (-1, HEIGHT, WIDTH))
        )


@pytest.mark.parametrize(
    ("kind", "change", "words"),
    [
        ("images", dict(id=9), " has ids of images twice: 9"),
        ("images", dict(id=[7]), ": images number 1 has id [7], expected a whole number or text"),
        ("images", dict(id=True), ": images number 1 has id True, expected a whole number or text"),
        ("images", dict(height=GONE), ": images id 7 has no height, expected a whole number"),
        ("images", dict(width=0), f": image 7 has height 20 and width 0, {SIZE}"),
        ("images", dict(file_name=GONE), f": images id 7 has no file_name, {TEXT}"),
        ("images", dict(file_name="a/" * 3000), f"""has file_name '{29 * "a/"}a..., {TEXT}"""),
        ("images", dict(id=[[7]]), ": images number 1 has id [[7]], expected a whole number or text"),
        ("categories", dict(name="c\ud800t"), f": categories id 30 has name 'c\\ud800t', {TEXT}"),
        ("categories", dict(name="W" * 5000), f"""has name '{59 * "W"}..., {TEXT}"""),
        ("images", dict(height="high"), ": images id 7 has height 'high', expected a whole number"),
        ("images", dict(height=10**30), f": image 7 has height {10**30} and width 30, {SIZE}"),
        ("images", dict(width=2**18, height=2**15), f": image 7 has height 32768 and width 262144, {SIZE}"),
        ("categories", dict(id=1.5), ": categories number 1 has id 1.5, expected a whole number"),
        ("categories", dict(id=10), " has ids of categories twice: 10"),
    ],
    ids=str,
)
def test_a_damaged_record_is_named(content, tmp_path, kind, change, words):
    content[kind][0] = changed(content[kind][0], change)
    assert opening_fails(content, tmp_path).endswith(words)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (dict(images=GONE), " has no list of images, expected annotations in COCO format"),
        (dict(annotations=GONE), " has no list of annotations, expected annotations in COCO format"),
        (dict(categories={}), " has no list of categories, expected annotations in COCO format"),
        (dict(categories=["cow"]), ": categories hold 'cow', expected objects with id, name"),
        (dict(images=[]), " has no images"),
        (dict(annotations=["box"]), ": annotations hold 'box', expected objects"),
        (dict(annotations=[]), " has no objects to train on"),
    ],
    ids=str,
)
def test_a_file_that_lacks_something_is_named(content, tmp_path, change, words):
    assert opening_fails(changed(content, change), tmp_path).endswith(f"json{words}")


def test_no_objects_to_validate_on_are_fine(content, tmp_path):
    content["annotations"] = []
    data = open_coco(write(tmp_path, content, "val/_annotations.coco.json", "val"), "val")
    assert (data.count_objects(), data.objects(0).masks, data.ground_truth()["annotations"]) == (0, None, [])


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (b'{"images": [],\n "annot', r"is damaged in line 2 \(Unterminated string"),
        (b"", r"is damaged in line 1 \(Expecting value\)$"),
        (b'{"images": "\xff"}', r"is damaged \('utf-8' codec can't decode"),
        (b"[" * 100_000, r"is damaged \(nested too deeply\)$"),
        (b"[1, 2]", "has no list of images"),
    ],
)
def test_a_file_that_is_no_json_is_named(content, tmp_path, text, words):
    source = write(tmp_path, content)
    (tmp_path / "annotations" / "instances_train.json").write_bytes(text)
    with pytest.raises(DataError, match=f"instances_train.json {words}"):
        open_coco(source, "train")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="Windows has no such pipes")
def test_a_pipe_is_no_file_of_annotations(content, tmp_path):
    source = write(tmp_path, content)
    path = tmp_path / "annotations" / "instances_train.json"
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(DataError, match=r"^data: .*instances_train.json is no regular file, expected one$"):
        open_coco(source, "train")


def test_more_objects_than_memory_has_room_for_make_an_image_unreadable_or_are_an_error(content, tmp_path):
    one = dict(image_id=7, category_id=10, bbox=[5, 2, 15, 15], segmentation=POLYGONS)
    content["annotations"] += [one | dict(id=10 + i) for i in range(2**15)]
    source = write(tmp_path, content)
    reason = r"has 32,769 objects, at most 32,768 are read"
    with pytest.raises(UnreadableImageError, match=rf"7.png: not a readable image \({reason}"):
        open_coco(source, "train", masks=False)[0]
    with pytest.raises(DataError, match=rf"instances_train.json: image 7 \(7.png\): {reason}$"):
        open_coco(source, "train", strict=True).objects(0)
    assert len(open_coco(source, "train").objects(2).labels) == 2


def test_masks_of_more_pixels_than_memory_has_room_for_make_an_image_unreadable(content, tmp_path):
    source = write(tmp_path, content)
    content["images"][2] |= dict(height=46_000, width=46_000)
    content["annotations"][2].pop("segmentation")
    content["annotations"] += [content["annotations"][0] | dict(id=10 + i) for i in range(2)]
    (tmp_path / "annotations" / "instances_train.json").write_text(json.dumps(content))
    reason = "has 3 objects of 46000x46000 pixels, the masks of at most 4,294,967,296 pixels in all are read"
    with pytest.raises(UnreadableImageError, match=reason):
        open_coco(source, "train").objects(2)
    assert len(open_coco(source, "train", masks=False).objects(2).labels) == 4


def test_unreadable_images_say_why(content, tmp_path):
    data = open_coco(write(tmp_path, content), "train")
    (tmp_path / "train" / "5.png").write_bytes(b"damaged")
    (tmp_path / "train" / "7.png").unlink()
    Image.new("RGB", (HEIGHT, WIDTH)).save(tmp_path / "train" / "9.png")
    for index, reason in (
        (0, "No such file"),
        (1, "empty, or of no known format"),
        (2, "is 20x30 pixels, the annotations say 30x20"),
    ):
        with pytest.raises(UnreadableImageError, match=reason) as caught:
            data[index]
        assert caught.value.name == data.name(index)


def turn_images(folder, orientation):
    """Write the images of ``write`` anew: a bright left half as they are stored, and an orientation."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    pixels = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    pixels[:, : WIDTH // 2] = 255
    for path in folder.iterdir():
        Image.fromarray(pixels).save(path, exif=exif)


def test_photos_are_upright_as_their_annotations(content, tmp_path):
    for image in content["images"]:
        image["height"], image["width"] = WIDTH, HEIGHT
    for annotation in content["annotations"]:
        annotation |= dict(bbox=[2, 3, 10, 12], segmentation=[[2, 3, 12, 3, 12, 15]])
    source = write(tmp_path, content)
    turn_images(tmp_path / "train", 6)  # the left half is on top
    data = open_coco(source, "train")
    assert data.warnings == []
    image, objects = data[0]
    assert image.size == (HEIGHT, WIDTH)
    assert np.asarray(image)[:, :, 0].mean(1).tolist() == [255] * 15 + [0] * 15
    assert objects.boxes.tolist() == [[2, 3, 12, 15]]
    assert objects.masks.shape == (1, WIDTH, HEIGHT)


def test_photos_stay_as_they_are_stored_where_their_annotations_are_of_that(content, tmp_path):
    source = write(tmp_path, content)
    turn_images(tmp_path / "train", 6)
    data = open_coco(source, "train")
    image, objects = data[2]
    assert image.size == (WIDTH, HEIGHT)
    assert np.asarray(image)[:, :, 0].mean(0).tolist() == [255] * 15 + [0] * 15
    assert objects.masks.shape[1:] == (HEIGHT, WIDTH)


def test_orientations_that_sizes_do_not_show_are_told(content, tmp_path):
    source = write(tmp_path, content)
    turn_images(tmp_path / "train", 3)
    data = open_coco(source, "train")
    (line,) = data.warnings
    assert line.startswith(f"{data.source}: 3 of 3 images that were looked at have an EXIF orientation")
    assert np.asarray(data.read(0))[:, :, 0].mean(0).tolist() == [0] * 15 + [255] * 15
