import numpy as np
import pytest
from PIL import Image

from tests.data.originals import write_camvid
from v2m.data import open_dataset
from v2m.data.coco.open import open_coco
from v2m.data.masks.check import find_mask_checks
from v2m.data.masks.open import open_masks
from v2m.system.errors import DataError


def test_images_have_eleven_classes_and_unlabelled_pixels(tmp_path, monkeypatch):
    root = write_camvid(tmp_path, monkeypatch)
    train, val = (open_masks("camvid", split, data_dir=tmp_path) for split in ("train", "val"))
    assert (len(train), len(val), len(train.classes)) == (4, 3, 11)
    image, labels = val[1]
    values = np.asarray(Image.open(root / "valannot" / "1.png"))
    assert image.size == (48, 36)
    np.testing.assert_array_equal(labels.numpy(), np.where(values == 11, 255, values))
    assert (values == 11).any()
    assert val.warnings == []


def test_another_ignore_index_or_map_counts(tmp_path, monkeypatch):
    write_camvid(tmp_path, monkeypatch)
    labels = open_masks("camvid", "train", ignore_index=200, data_dir=tmp_path)[0][1]
    assert set(labels.unique().tolist()) <= {*range(11), 200}
    labels = open_masks("camvid", "train", label_map={11: 255, 0: 255}, data_dir=tmp_path)[0][1]
    assert 0 not in labels.unique().tolist()


def test_a_check_sees_all_three_splits(tmp_path, monkeypatch):
    write_camvid(tmp_path, monkeypatch)
    checks = find_mask_checks("camvid", data_dir=tmp_path)
    assert {check.name: len(check) for check in checks} == dict(train=4, val=3, test=2)
    looks = [checks[0].look(index) for index in range(4)]
    assert [look.problems for look in looks] == [[]] * 4
    assert checks[0].finish(looks).numbers["ignored pixels"] > 0


def test_a_missing_image_is_counted(tmp_path, monkeypatch):
    root = write_camvid(tmp_path, monkeypatch)
    (root / "test" / "1.png").unlink()
    with pytest.raises(DataError, match=r"test has 1 files, those of camvid are 2"):
        open_masks("camvid", "train", data_dir=tmp_path)


def test_a_name_with_the_wrong_task_is_refused_with_the_right_one(tmp_path):
    with pytest.raises(
        DataError, match="camvid is for segmentation, not for classification: give --task seg"
    ):
        open_dataset("camvid", "train", tmp_path)
    with pytest.raises(
        DataError, match="cifar10 is for classification, not for segmentation: give --task cla"
    ):
        open_masks("cifar10", "train")
    with pytest.raises(DataError, match="camvid is for segmentation, not for detection"):
        open_coco("camvid", "train")
