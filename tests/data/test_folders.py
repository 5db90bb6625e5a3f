import shutil

import pytest
from PIL import Image

from v2m.data import DataError, UnreadableImageError, open_dataset


def test_images_of_many_formats_at_any_depth_are_read_and_hidden_ones_not(image_folder, tmp_path):
    picture = Image.new("RGB", (9, 7), "red")
    red = image_folder / "train" / "red"
    (red / "more of it").mkdir()
    for suffix in ("webp", "JPEG", "bmp", "tif"):
        picture.save(red / "more of it" / f"ünusual name.{suffix}")
    (red / ".trash").mkdir()
    picture.save(red / ".trash" / "old.png")
    (red / "._0.png").write_bytes(b"what macOS leaves")
    (red / "notes.txt").write_text("no image")
    (image_folder / "train" / ".ipynb_checkpoints").mkdir()
    data = open_dataset(str(image_folder), "train", tmp_path)
    assert len(data) == 24 + 4
    assert data.classes == ["blue", "green", "red"]
    assert {data.read(i).size for i in range(24, 28)} == {(9, 7)}


def test_empty_classes_are_named_in_training_and_allowed_in_validation(image_folder, tmp_path):
    for split in ("train", "val"):
        for image in (image_folder / split / "green").iterdir():
            image.unlink()
    with pytest.raises(DataError, match="train has no images of the classes green"):
        open_dataset(str(image_folder), "train", tmp_path)
    assert sorted(open_dataset(str(image_folder), "val", tmp_path).targets) == [0] * 4 + [2] * 4
    (image_folder / "val" / "purple").mkdir()
    with pytest.raises(DataError, match="classes that are not known: purple"):
        open_dataset(str(image_folder), "val", tmp_path)


def test_folders_without_classes_or_images_are_named(image_folder, tmp_path):
    for path in (image_folder / "val").rglob("*.png"):
        path.unlink()
    with pytest.raises(DataError, match=r"val holds no images \(\.jpg"):
        open_dataset(str(image_folder), "val", tmp_path)
    shutil.rmtree(image_folder / "val")
    (image_folder / "val").mkdir()
    with pytest.raises(DataError, match=r"val has no class folders, expected val/<class>/<image>"):
        open_dataset(str(image_folder), "val", tmp_path)


def test_an_image_that_went_away_is_named(image_folder, tmp_path):
    data = open_dataset(str(image_folder), "val", tmp_path)
    (image_folder / "val" / "blue" / "0.png").unlink()
    with pytest.raises(UnreadableImageError, match=r"blue/0\.png: not a readable image \(.*No such file"):
        data[0]


def test_classes_of_two_unicode_forms_are_one(image_folder, tmp_path):
    """macOS and some archives write accents as characters of their own."""
    (image_folder / "train" / "blue").rename(image_folder / "train" / "bl\u00e9")
    (image_folder / "val" / "blue").rename(image_folder / "val" / "ble\u0301")
    (image_folder / "train" / "green").rename(image_folder / "train" / "ble\u0301")
    data = open_dataset(str(image_folder), "train", tmp_path)
    assert data.classes == ["bl\u00e9", "red"]
    assert data.targets == [0] * 16 + [1] * 8
    shutil.rmtree(image_folder / "val" / "green")
    for classes in (None, ["red", "ble\u0301"]):
        val = open_dataset(str(image_folder), "val", tmp_path, classes)
        assert [val.classes[target] for target in val.targets] == ["bl\u00e9"] * 4 + ["red"] * 4
