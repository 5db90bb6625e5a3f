import json

import numpy as np
import pytest
from PIL import Image

from tests.data.coco.made import HEIGHT, WIDTH, write
from tests.data.coco.made import content as content
from v2m.data.check.annotated import find_annotated_problems
from v2m.data.check.facts import inspect_all
from v2m.data.coco.check import find_object_checks
from v2m.data.image_files import walk_files


def check(root, workers=0):
    """All splits, and the problems as (split, name in its folder, kind, detail)."""
    splits = [c.finish(list(inspect_all(c.look, len(c), workers))) for c in find_object_checks(str(root))]
    found = [
        (p.split, p.image and p.image.removeprefix(f"{root}/"), p.kind, p.detail)
        for p in find_annotated_problems(splits, 8)
    ]
    return splits, found


@pytest.mark.parametrize("workers", [0, 2])
def test_objects_are_counted(content, tmp_path, workers):
    write(tmp_path, content)
    (split,), problems = check(tmp_path, workers)
    assert split.counts == dict(dog=1, cat=1)
    assert split.numbers == {"objects": 2, "crowds": 1, "images without objects": 1}
    assert [fact.size for fact in split.facts] == [(WIDTH, HEIGHT)] * 3
    assert problems == []


def test_files_that_are_missing_left_over_or_of_another_size_are_named(content, tmp_path):
    write(tmp_path, content)
    train = tmp_path / "train"
    (train / "7.png").unlink()
    (train / "5.png").write_bytes(b"broken")
    Image.new("RGB", (HEIGHT, WIDTH)).save(train / "9.png")
    Image.new("RGB", (WIDTH, HEIGHT)).save(train / "more.png")
    (train / "notes.txt").write_text("none")
    assert check(tmp_path)[1] == [
        ("train", "train/5.png", "unreadable", "empty, or of no known format"),
        ("train", "train/7.png", "missing image", "of 30x20 pixels"),
        ("train", "train/9.png", "size", "is 20x30 pixels, the annotations say 30x20"),
        ("train", "train/more.png", "left-over image", "not in the annotations"),
    ]


def test_the_folder_is_listed_once(content, tmp_path, monkeypatch):
    write(tmp_path, content)
    listed = []

    def walk(folder):
        listed.append(folder)
        return walk_files(folder)

    monkeypatch.setattr("v2m.data.image_files.walk_files", walk)
    check(tmp_path)
    assert listed == [tmp_path / "train"]


@pytest.mark.parametrize("size", [(WIDTH, HEIGHT), (HEIGHT, WIDTH)])
def test_images_on_their_side_are_named_and_their_annotations_may_be_of_either_size(content, tmp_path, size):
    write(tmp_path, content)
    exif = Image.Exif()
    exif[0x0112] = 6
    pixels = np.random.default_rng(0).integers(0, 256, (*size[::-1], 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "train" / "9.png", exif=exif)
    detail = f"orientation 6, stored as {size[0]}x{size[1]} pixels"
    assert check(tmp_path)[1] == [("train", "train/9.png", "turned", detail)]


def test_every_annotation_that_cannot_be_used_is_named(content, tmp_path):
    good = content["annotations"][0]
    content["annotations"] += [
        good | dict(id=4, category_id=7),
        good | dict(id=5, bbox=[-4, 3, 10, 10], segmentation=[[0, 3, 6, 3, 6, 13, 0, 13]]),
        good | dict(id=6, image_id=1),
    ]
    content["annotations"][1]["segmentation"]["counts"] = "zzzz"
    content["categories"].append(dict(id=40, name="hen"))
    write(tmp_path, content)
    problems = check(tmp_path)[1]
    assert [(image, kind) for _, image, kind, _ in problems] == [
        ("train/9.png", "annotation"),
        (None, "annotation"),
        ("train/7.png", "annotation"),
        ("train/9.png", "beyond"),
        (None, "empty class"),
    ]
    details = [detail for *_, detail in problems]
    assert details[0] == "annotation 4 of image 9 (9.png) has category_id 7, known: 10, 30, 40"
    assert details[1] == "annotation 6 of image 1 has image_id 1, known: 7, 5, 9"
    assert details[2].startswith("annotation 2 has a damaged mask: ")
    assert details[4] == "hen"


def test_objects_that_are_there_twice_are_doubtful(content, tmp_path):
    content["annotations"].append(content["annotations"][1] | dict(id=4))
    write(tmp_path, content)
    ((split, name, kind, detail),) = check(tmp_path)[1]
    assert (split, name, kind) == ("train", None, "doubtful")
    assert detail.startswith("1 of 4 objects are there before")


def test_splits_are_compared(content, tmp_path):
    write(tmp_path, content, "train/_annotations.coco.json", "train")
    content["categories"].append(dict(id=40, name="hen"))
    content["images"] = content["images"][:1]
    content["annotations"] = [content["annotations"][1] | dict(category_id=40)]
    write(tmp_path, content, "valid/_annotations.coco.json", "valid")
    assert check(tmp_path)[1] == [
        ("valid", "valid/7.png", "leak", f"same as {tmp_path / 'train' / '7.png'}"),
        ("valid", None, "unknown class", "hen"),
        ("valid", None, "empty class", "dog"),
        ("valid", None, "empty class", "cat"),
    ]


def test_a_set_of_crowds_is_checked_too(content, tmp_path):
    for annotation in content["annotations"]:
        annotation["iscrowd"] = 1
    write(tmp_path, content)
    (split,), problems = check(tmp_path)
    assert split.numbers["crowds"] == 3
    assert [(kind, detail) for *_, kind, detail in problems] == [
        ("empty class", "dog"),
        ("empty class", "cat"),
    ]


def test_other_folders_have_no_objects_to_check(image_folder):
    assert find_object_checks(str(image_folder)) == []
    (image_folder / "annotations").mkdir()
    (image_folder / "annotations" / "captions_train.json").write_text(json.dumps({}))
    assert find_object_checks(str(image_folder)) == []
