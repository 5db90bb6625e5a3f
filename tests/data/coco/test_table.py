import json

import numpy as np
import pytest

from tests.data.coco.made import (
    BLOB,
    GONE,
    HEIGHT,
    POLYGONS,
    RUNS,
    WIDTH,
    changed,
    opening_fails,
    warnings,
    write,
)
from tests.data.coco.made import content as content
from v2m.data.coco.open import open_coco
from v2m.data.errors import UnreadableImageError
from v2m.system.errors import DataError

DAMAGE = [
    (dict(category_id=99), "category_id", "has category_id 99, known: 10, 30"),
    (dict(category_id=GONE), "category_id", "has no category_id, expected a whole number"),
    (dict(category_id="dog"), "category_id", "has category_id 'dog', expected a whole number"),
    (dict(image_id=3), "image_id", "has image_id 3, known: 7, 5, 9"),
    (dict(image_id="3"), "image_id", "has image_id 3, known: 7, 5, 9"),
    (dict(image_id=None), "image_id", "has image_id None, expected a whole number or text"),
    (dict(bbox=GONE), "bbox", "has no bbox, expected four finite numbers"),
    (dict(bbox="box"), "bbox", "has bbox 'box', expected four finite numbers"),
    (dict(bbox=[1, 2, 3]), "bbox", "has bbox [1, 2, 3], expected four finite numbers"),
    (dict(bbox=[1, 2, 3, float("nan")]), "bbox", "has bbox [1, 2, 3, nan], expected four finite numbers"),
    (dict(bbox=[1, 2, 3, float("-inf")]), "bbox", "has bbox [1, 2, 3, -inf], expected four finite numbers"),
    (dict(bbox=[1, 2, 3, "4 px"]), "bbox", "has bbox [1, 2, 3, '4 px'], expected four finite numbers"),
    (dict(bbox=[1, 2, 3, "1_0"]), "bbox", "has bbox [1, 2, 3, '1_0'], expected four finite numbers"),
    (dict(bbox=[1, 2, 3, True]), "bbox", "has bbox [1, 2, 3, True], expected four finite numbers"),
    (dict(bbox=[10**400, 2, 3, 4]), "bbox", "000..., expected four finite numbers"),
    (dict(bbox=[4, 4, 0, 5]), "bbox", "has bbox [4, 4, 0, 5], which has no area in its image"),
    (dict(bbox=[31, 4, 5, 5]), "bbox", "has bbox [31, 4, 5, 5], which has no area in its image"),
    (dict(area="large"), "area", "has area 'large', expected a number of pixels"),
    (dict(area=-1), "area", "has area -1, expected a number of pixels"),
    (dict(area=[]), "area", "has area [], expected a number of pixels"),
    (dict(area=True), "area", "has area True, expected a number of pixels"),
    (dict(iscrowd="no"), "iscrowd", "has iscrowd 'no', expected 0 or 1"),
    (dict(iscrowd=2), "iscrowd", "has iscrowd 2, expected 0 or 1"),
    (dict(iscrowd=[0]), "iscrowd", "has iscrowd [0], expected 0 or 1"),
]
MASK_DAMAGE = [
    ([], "has no segmentation, but others have one"),
    (GONE, "has no segmentation, but others have one"),
    ([[1, 2, 3, 4]], "has no polygon of three points or more"),
    ([1, 2, 3, 4], "has no polygon of three points or more"),
    ([[1, 2, 3, 4, 5, 6, 7]], "no list of finite x and y: [1, 2, 3, 4, 5, 6, 7]"),
    ([1, 2, 3, 4, 5, 6, 7], "no list of finite x and y: [1, 2, 3, 4, 5, 6, 7]"),
    ([[1, 2, 3, 4, 5, None]], "no list of finite x and y: [1, 2, 3, 4, 5, None]"),
    ([[1, 2, 3, 4, 5, 1e300]], "no list of finite x and y: [1, 2, 3, 4, 5, 1e+300]"),
    ("x", "has a segmentation that is neither polygons nor runs"),
    (
        [3 * [-9e5, -9e5, 9e5, 9e5]],
        "has polygons with an outline of 10,800,000 pixels, expected at most 8,388,608",
    ),
    (RUNS | dict(size=[30, 20]), "has a mask of size [30, 20], expected that of its image, [20, 30]"),
    (RUNS | dict(counts=[5, 6]), "has a mask of 11 pixels, expected 600"),
    (RUNS | dict(counts=[700, -100]), "counts are no list of whole numbers, nor text"),
    (dict(size=[20, 30]), "counts are no list of whole numbers, nor text"),
]
DAMAGE += [(dict(segmentation=mask), "segmentation", words) for mask, words in MASK_DAMAGE]


@pytest.mark.parametrize(("change", "field", "words"), DAMAGE, ids=str)
def test_a_damaged_annotation_is_left_out_and_named_or_an_error(content, tmp_path, change, field, words):
    content["annotations"][0] = changed(content["annotations"][0], change)
    message = opening_fails(content, tmp_path, strict=True)
    assert "json: annotation 1 of image " in message
    assert message.endswith(words)
    line, _ = warnings(content, tmp_path)  # and that there are no more dogs
    assert line.startswith(f"1 of 3 annotations are left out for their {field}, the first: annotation 1 of ")
    assert line.endswith(words)
    data = open_coco(str(tmp_path), "train")
    assert data.count_objects() == 2
    assert data.objects(2).areas.tolist() == [7]
    (fault,) = data.faults
    assert (fault.field, fault.image) == (field, None if "image_id" in change else 2)


@pytest.mark.parametrize(("mask", "_"), MASK_DAMAGE, ids=str)
def test_masks_that_are_not_used_are_not_looked_at(content, tmp_path, mask, _):
    content["annotations"][0] = changed(content["annotations"][0], dict(segmentation=mask))
    assert warnings(content, tmp_path, masks=False, strict=True) == []
    data = open_coco(str(tmp_path), "train", masks=False)
    assert (data.count_objects(), data.has_masks, data.objects(2).masks) == (3, False, None)


@pytest.mark.parametrize(
    ("change", "like"),
    [
        (dict(area="90.5", category_id="10", image_id="9", iscrowd="0"), {}),
        (dict(area="9.05e1", category_id=10.0, image_id=9.0, iscrowd=0.0), {}),
        (dict(iscrowd=False), {}),
        (dict(iscrowd=None), {}),
        (dict(iscrowd="1"), dict(iscrowd=1)),
        (dict(iscrowd=True), dict(iscrowd=1)),
        (dict(bbox=["2", "3.0", 26, "14"]), {}),
        (dict(segmentation=[list(map(str, points)) for points in POLYGONS]), {}),
        (dict(segmentation=POLYGONS[0]), dict(segmentation=POLYGONS[:1])),
        (dict(area=None), dict(area=26 * 14)),
    ],
    ids=str,
)
def test_values_of_one_meaning_are_read(content, tmp_path, change, like):
    given = content["annotations"][0]
    content["annotations"][0] = given | like
    expected = open_coco(write(tmp_path, content), "train").objects(2)
    content["annotations"][0] = given | change
    warnings(content, tmp_path, strict=True)
    for ours, theirs in zip(open_coco(str(tmp_path), "train").objects(2), expected, strict=True):
        np.testing.assert_array_equal(ours.numpy(), theirs.numpy())


@pytest.mark.parametrize("ids", [[2**63, 2**200, -1], ["a", "b", "000123"], ["5e-1", 0.5, None], [GONE] * 3])
def test_annotations_may_have_any_ids_and_none(content, tmp_path, ids):
    content["annotations"] = [
        changed(a, dict(id=id)) for a, id in zip(content["annotations"], ids, strict=True)
    ]
    assert warnings(content, tmp_path, strict=True) == []
    truth = open_coco(str(tmp_path), "train").ground_truth()["annotations"]
    assert [a["id"] for a in truth] == [None if ids[i] is GONE else ids[i] for i in (1, 0, 2)]


def test_ids_of_annotations_that_are_there_twice_are_told_and_all_are_kept(content, tmp_path):
    for annotation in content["annotations"]:
        annotation["id"] = 4
    (line,) = warnings(content, tmp_path)
    assert line == "2 annotations have the id of another one, all are kept, the first: 4"
    assert open_coco(str(tmp_path), "train").count_objects() == 3


@pytest.mark.parametrize("ids", [["x1", "x2", "x3"], ["007", "7", 2**70]])
def test_images_may_be_named_by_text(content, tmp_path, ids):
    new = dict(zip((7, 5, 9), ids, strict=True))
    for image in content["images"]:
        image["id"] = new[image["id"]]
    for annotation in content["annotations"]:
        annotation["image_id"] = new[annotation["image_id"]]
    assert warnings(content, tmp_path, strict=True) == []
    data = open_coco(str(tmp_path), "train")
    assert [len(data.objects(i).labels) for i in range(3)] == [1, 0, 2]


def test_kinds_of_damage_have_a_line_each(content, tmp_path):
    good = content["annotations"][0]
    content["annotations"] += [
        good | dict(id=11, bbox=[-4, 3, 10, 10]),
        good | dict(id=12, bbox=None),
        good | dict(id=13, category_id=7),
        good | dict(id=14, bbox=[1, 2, 0, 0], category_id=8),
    ]
    assert warnings(content, tmp_path) == [
        "1 of 7 boxes reach beyond their images and are cut, the first: annotation 11 of image 9 (9.png) "
        "has bbox [-4, 3, 10, 10], which reaches beyond its image",
        "1 of 7 annotations are left out for their bbox, the first: annotation 12 of image 9 (9.png) "
        "has bbox None, expected four finite numbers",
        "2 of 7 annotations are left out for their category_id, the first: annotation 13 of image 9 (9.png) "
        "has category_id 7, known: 10, 30",
    ]


def test_a_set_of_crowds_is_nothing_to_train_on(content, tmp_path):
    for annotation in content["annotations"]:
        annotation["iscrowd"] = "1"
    assert opening_fails(content, tmp_path, masks=False).endswith(
        "json has no objects to train on: 3 are crowds (iscrowd 1), which are not trained on; one object has "
        "iscrowd 0"
    )
    source = write(tmp_path, content, "val/_annotations.coco.json", "val")
    assert open_coco(source, "val").count_by_class(crowds=True) == [1, 2]


def test_where_all_is_left_out_the_error_says_why(content, tmp_path):
    for annotation in content["annotations"]:
        annotation["category_id"] = 0
    message = opening_fails(content, tmp_path)
    assert " has no objects to train on: 3 of 3 annotations are left out for their category_id, " in message


def test_hardly_anything_to_learn_is_told(content, tmp_path):
    first, second, _ = content["annotations"]
    extra = [dict(id=i, file_name=f"{i}.png", height=HEIGHT, width=WIDTH) for i in range(10, 20)]
    content["images"] += extra
    content["annotations"] = [
        first,
        *(second | dict(id=i, iscrowd=1, bbox=[5, 2, 15, 12 + i]) for i in (2, 3)),
    ]
    assert warnings(content, tmp_path) == [
        "2 of 3 objects are crowds (iscrowd 1), which are not trained on; one object has iscrowd 0",
        "1 of 13 images have objects, the others are background",
        "1 of 2 classes have no object to train on, and will not be found: cat; add some, or take the "
        "categories out of all files",
    ]


@pytest.mark.parametrize("counts", ["zzzz", "", "PPPPPPPPPPPPPPPPPPPPPPP"])
def test_a_damaged_mask_makes_an_image_unreadable_or_is_an_error(content, tmp_path, counts):
    content["annotations"][1]["segmentation"]["counts"] = counts
    source = write(tmp_path, content)
    with pytest.raises(UnreadableImageError, match=r"7.png: .*annotation 2 has a damaged mask: "):
        open_coco(source, "train")[0]
    with pytest.raises(DataError, match=r"train.json: image 7 .7.png.: annotation 2 has a damaged mask: "):
        open_coco(source, "train", strict=True)[0]


def test_polygons_of_very_many_points_are_read_where_they_stay_in_their_image(content, tmp_path):
    corners = [0, 0, 29, 0, 29, 19, 0, 19]
    content["annotations"][1]["segmentation"] = [corners * 20_001]
    content["annotations"][2]["segmentation"] = [[-9e5, 0, 9e5, 0, 9e5, 19, -9e5, 19]]
    data = open_coco(write(tmp_path, content), "train")
    assert data.objects(0).masks.sum() > 500
    assert data.objects(2).masks[1].sum() == 19 * WIDTH


def test_of_runs_nothing_is_kept_but_size_and_counts(content, tmp_path):
    content["annotations"][1]["segmentation"]["size"] = [20.0, 30.0]
    source = write(tmp_path, content)
    path = tmp_path / "annotations" / "instances_train.json"
    deep = "[" * 500 + "]" * 500
    path.write_text(json.dumps(content).replace('"counts"', f'"note": {deep}, "counts"'))
    data = open_coco(source, "train")
    assert data.ground_truth()["annotations"][0]["segmentation"].keys() == {"size", "counts"}
    assert data.objects(0).masks.sum() == BLOB.sum()


def test_values_that_are_deep_or_large_are_told_in_a_line(content, tmp_path):
    source = write(tmp_path, content)
    path = tmp_path / "annotations" / "instances_train.json"
    for value in ("[" * 500 + "]" * 500, json.dumps(["x" * 10**6] * 20), "1e400", "9" * 4000, '"\\ud800"'):
        path.write_text(json.dumps(content).replace('"area": 90.5', f'"area": {value}'))
        (line, _) = open_coco(source, "train").warnings
        assert "annotation 1 of image 9 (9.png) has area" in line
        assert len(line) < 500
        assert "\n" not in line


def test_a_number_of_thousands_of_digits_is_damage(content, tmp_path):
    source = write(tmp_path, content)
    path = tmp_path / "annotations" / "instances_train.json"
    path.write_text(json.dumps(content).replace('"area": 90.5', f'"area": {"9" * 5000}'))
    with pytest.raises(DataError, match=r"instances_train.json is damaged \(Exceeds the limit"):
        open_coco(source, "train")
