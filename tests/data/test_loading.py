import random

import pytest

from v2m.data import AugmentConfig, ImageSpec, open_dataset, train_transform
from v2m.data.loading import EvalLoader, TrainLoader
from v2m.system.errors import DataError

SPEC = ImageSpec((8, 8), 3, (0.5,) * 3, (0.5,) * 3, crop_pct=1.0, interpolation="bicubic")


class FailsRarely:
    """Fails by what is drawn, not by the image."""

    def __init__(self, share):
        self._share = share
        self._transform = train_transform(SPEC, AugmentConfig(scale=(0.5, 1.0), hflip=0.5))

    def __call__(self, image):
        if random.random() < self._share:
            raise KeyError("a bad draw")
        return self._transform(image)


def batches(folder, tmp_path, share, workers=0):
    data = open_dataset(str(folder), "train", tmp_path)
    data.transform = FailsRarely(share)
    loader = TrainLoader(data, 8, workers=workers)
    return [part for epoch in (1, 2, 3) for (part,) in loader.epoch(epoch)]


def test_an_augmentation_that_fails_for_a_draw_is_counted_and_the_next_image_drawn_anew(
    image_folder, tmp_path
):
    found = batches(image_folder, tmp_path, 0.6)
    failures = [item for batch in found for item in batch.unreadable]
    assert 50 < len(failures) < 200  # 72 images, of which 0.6 fail, and 0.6 of those taken for them, ...
    assert {item.reason for item in failures} == {"'a bad draw'"}
    assert all(item.name.endswith(".png") for item in failures)
    assert all(len(batch.images) == 8 for batch in found)
    again = batches(image_folder, tmp_path, 0.6, workers=1)
    assert [batch.images.tolist() for batch in again] == [batch.images.tolist() for batch in found]


def test_an_augmentation_that_always_fails_ends_training_with_its_reason(image_folder, tmp_path):
    with pytest.raises(
        DataError, match=r"20 images in a row cannot be used, from .*png \('a bad draw'\) to "
    ):
        batches(image_folder, tmp_path, 1.0)


def test_evaluation_names_images_that_its_transform_fails_on(image_folder, tmp_path):
    data = open_dataset(str(image_folder), "val", tmp_path)
    data.transform = FailsRarely(1.0)
    found = [item for batch in EvalLoader(data, 5) for item in batch.unreadable]
    assert [item.name for item in found] == [data.name(i) for i in range(12)]
    assert {item.reason for item in found} == {"'a bad draw'"}
