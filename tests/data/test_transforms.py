import pickle

import numpy as np
import pytest
import torch
from PIL import Image

from v2m.data import AugmentConfig, ImageSpec, eval_transform, train_transform

GRAY = ImageSpec((8, 8), 1, (0.25,), (0.5,), crop_pct=1.0, interpolation="bicubic")
COLOUR = ImageSpec((12, 20), 3, (0.5, 0.4, 0.3), (0.1, 0.2, 0.3), crop_pct=0.9, interpolation="bilinear")


def test_evaluation_only_normalises_an_image_of_the_right_size():
    pixels = np.arange(64, dtype=np.uint8).reshape(8, 8) * 4
    tensor = eval_transform(GRAY)(Image.fromarray(pixels))
    expected = (torch.from_numpy(pixels).float() / 255 - 0.25) / 0.5
    torch.testing.assert_close(tensor[0], expected)


@pytest.mark.parametrize("spec", [GRAY, COLOUR])
@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "P", "1", "CMYK"])
def test_any_image_becomes_what_the_model_takes(spec, mode):
    image = Image.new("RGB", (33, 17), (200, 40, 90)).convert(mode)
    augment = AugmentConfig(scale=(0.5, 1.0), hflip=0.5, auto_augment="rand-m9-mstd0.5", random_erasing=1.0)
    for transform in (eval_transform(spec), train_transform(spec, augment)):
        tensor = transform(image)
        assert tensor.shape == (spec.in_chans, *spec.img_size)
        assert tensor.isfinite().all()


def test_mirroring_happens_as_often_as_asked_for():
    image = Image.fromarray(np.tile(np.arange(0, 160, 20, dtype=np.uint8), (8, 1)))

    def is_mirrored(hflip):
        augment = AugmentConfig(scale=(1.0, 1.0), ratio=(1.0, 1.0), hflip=hflip)
        rows = (train_transform(GRAY, augment)(image)[0, 0] for _ in range(20))
        return [bool(row[0] > row[-1]) for row in rows]

    assert not any(is_mirrored(0.0))
    assert all(is_mirrored(1.0))


def test_transforms_travel_to_worker_processes():
    image = Image.new("L", (8, 8), 77)
    transform = eval_transform(GRAY)
    torch.testing.assert_close(pickle.loads(pickle.dumps(transform))(image), transform(image))


def test_bad_settings_are_named():
    with pytest.raises(ValueError, match="in_chans is 4, expected 1"):
        ImageSpec((8, 8), 4, (0.5,) * 4, (0.5,) * 4, 1.0, "bicubic")
    with pytest.raises(ValueError, match="auto_augment is 'nonsense'"):
        train_transform(GRAY, AugmentConfig(scale=(0.5, 1.0), hflip=0.0, auto_augment="nonsense"))
