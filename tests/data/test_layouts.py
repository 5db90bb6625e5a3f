"""Folders of other tasks are not taken for classes."""

import pytest
from PIL import Image

from v2m.data import open_dataset
from v2m.system.errors import DataError


@pytest.mark.parametrize(
    ("files", "words"),
    [
        (
            ["train/images/a.png", "train/masks/a.png"],
            "/train/images has masks in .*: give --task segmentation",
        ),
        (
            ["images/train/a.png", "annotations/train/a.png"],
            "/images/train has masks in .*/annotations/train: ",
        ),
        (
            ["train/a.png", "train/_annotations.coco.json"],
            "COCO format in .*coco.json: give --task detection",
        ),
        (
            ["train2017/a.png", "annotations/instances_train2017.json"],
            "instances_train2017.json: give --task det",
        ),
        (["train/a.png", "annotations/instances_train.json"], "COCO format in .*: give --task detection"),
        (
            ["train/images/a.png", "train/labels/a.txt"],
            "boxes in YOLO's format in .*train/labels, which is not read",
        ),
    ],
)
def test_the_task_is_named(tmp_path, files, words):
    for file in files:
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        if file.endswith("png"):
            Image.new("RGB", (4, 4)).save(tmp_path / file)
        else:
            (tmp_path / file).write_text("")
    with pytest.raises(DataError, match=words):
        open_dataset(str(tmp_path), "train", tmp_path)


def test_classes_stay_classes(image_folder, tmp_path):
    """Annotations may lie beside class folders, and a class may be called as a folder of another task."""
    (image_folder / "annotations").mkdir()
    (image_folder / "annotations" / "instances_train.json").write_text("{}")
    (image_folder / "train" / "red").rename(image_folder / "train" / "masks")
    (image_folder / "train" / "blue").rename(image_folder / "train" / "images")
    assert open_dataset(str(image_folder), "train", tmp_path).classes == ["green", "images", "masks"]
