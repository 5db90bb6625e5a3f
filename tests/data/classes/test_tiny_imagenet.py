import pytest

from tests.data.originals import write_tiny_imagenet
from v2m.data import find_splits, open_dataset
from v2m.system.errors import DataError


def test_classes_are_in_the_order_of_ids_and_have_the_first_of_their_names(tmp_path, monkeypatch):
    write_tiny_imagenet(tmp_path, monkeypatch)
    train, val = (open_dataset("tiny-imagenet", split, tmp_path) for split in ("train", "val"))
    # Two classes are called crane.
    assert train.classes == val.classes == ["crane (n01)", "goldfish", "crane (n03)"]
    assert train.targets == [0, 0, 1, 1, 2, 2]
    assert val.targets == [2, 1, 0]
    assert [round(val.read(index).getpixel((9, 9))[0], -1) for index in range(3)] == [160, 80, 0]
    assert list(find_splits("tiny-imagenet", tmp_path)) == ["train", "val"]


def test_missing_images_are_counted(tmp_path, monkeypatch):
    root = write_tiny_imagenet(tmp_path, monkeypatch)
    (root / "train" / "n02" / "images" / "n02_0.JPEG").unlink()
    with pytest.raises(
        DataError, match=r"train has 5 images, tiny-imagenet has 6; give the folder as --data"
    ):
        open_dataset("tiny-imagenet", "train", tmp_path)


def test_a_class_without_a_name_is_an_error(tmp_path, monkeypatch):
    root = write_tiny_imagenet(tmp_path, monkeypatch)
    (root / "words.txt").write_text("n01\tcrane\nn03\tcrane\n")
    with pytest.raises(DataError, match=r"words.txt has no name of the class n02"):
        open_dataset("tiny-imagenet", "val", tmp_path)
