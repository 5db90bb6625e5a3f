"""What is told of the classes when data are opened."""

import shutil

import pytest

from tests.data.formats import as_webdataset
from v2m.system.errors import DataError
from v2m.tasks.classification.config import ClassificationConfig
from v2m.tasks.classification.task import Classification


def open_data(source):
    """The lines that opening a dataset prints."""
    said = []
    task = Classification(Classification.resolve(ClassificationConfig(str(source), model="v2m_nano")))
    task.open_data(said.append)
    return said


def test_a_class_without_validation_images_is_named(image_folder):
    assert open_data(image_folder) == []
    shutil.rmtree(image_folder / "val" / "red")
    assert open_data(image_folder) == [
        f"{image_folder}/val has no images of the classes red: scores say nothing of them"
    ]


def test_a_class_that_is_in_the_list_alone_is_named(image_folder, tmp_path):
    root = tmp_path / "shards"
    as_webdataset(image_folder, root)
    (root / "classes.txt").write_text("blue\ngreen\nred\npink\n")
    train, val = open_data(root)
    assert train.endswith("has no images of the classes pink: they cannot be learned")
    assert val.endswith("has no images of the classes pink: scores say nothing of them")


def test_images_of_one_class_of_a_list_leave_nothing_to_learn(image_folder, tmp_path):
    for split in ("train", "val"):
        for name in ("red", "green"):
            shutil.rmtree(image_folder / split / name)
    root = tmp_path / "shards"
    as_webdataset(image_folder, root)
    (root / "classes.txt").write_text("blue\ngreen\nred\n")
    with pytest.raises(DataError, match="has images of less than two classes, expected 2"):
        open_data(root)
