"""Transforms of images and their labels."""

import numpy as np
import pytest
import torch
from PIL import Image

from v2m.data.loading import TrainLoader, seed_everything
from v2m.tasks.segmentation.config import AugmentConfig, InputConfig
from v2m.tasks.segmentation.data import (
    EvalTransform,
    TrainTransform,
    base_scale,
    open_train_data,
    resolve_input,
)

PLAIN = AugmentConfig(scale=(1.0, 1.0), hflip=0.0, photometric=0.0, max_ratio=1.0)
INPUT = InputConfig(crop_size=(24, 32), mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25))


def columns(height=40, width=60):
    """An image whose red channel is the column, and labels that are so too."""
    labels = torch.arange(width).repeat(height, 1)
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[..., 0] = labels.numpy()
    return Image.fromarray(pixels), labels


def columns_of(image):
    return ((image[0] * 0.25 + 0.5) * 255).round().long()


@pytest.mark.parametrize("hflip", [0.0, 1.0])
def test_image_and_labels_stay_together(hflip):
    config = AugmentConfig(scale=(1.0, 1.0), hflip=hflip, photometric=0.0)
    for _ in range(5):
        image, labels = TrainTransform(INPUT, config, None)(*columns())
        assert type(image) is type(labels) is torch.Tensor
        assert image.shape == (3, 24, 32)
        assert labels.dtype == torch.int64
        assert torch.equal(columns_of(image), labels)
        step = labels[0].diff()
        assert (step == (-1 if hflip else 1)).all()


@pytest.mark.parametrize(("height", "width"), [(1, 65_000), (65_000, 1), (512, 256), (2, 2)])
def test_very_narrow_images_are_not_enlarged_without_bound(height, width):
    scale = base_scale(height, width, 512)
    assert scale == 512 / min(height, width) or round(scale * height) * round(scale * width) < 2**24 + 2**17
    assert base_scale(height, width, None) == 1


@pytest.mark.parametrize(("scale", "short_side", "width"), [(0.5, None, 30), (0.5, 20, 15), (0.25, 80, 30)])
def test_scale_is_of_the_image(scale, short_side, width):
    config = AugmentConfig(scale=(scale, scale), hflip=0.0, photometric=0.0)
    image, labels = TrainTransform(INPUT, config, short_side)(*columns())
    assert labels.shape == (24, 32)
    height = width * 40 // 60
    assert (labels[height:] == 255).all()
    assert (labels[:, width:] == 255).all()
    assert (image[:, height:] == 0).all()
    assert (labels[:height, :width] < 60).all()
    assert (columns_of(image)[:height, :width] - labels[:height, :width]).abs().max() <= 2


def test_crops_are_not_full_of_one_class():
    image = Image.new("RGB", (200, 100))
    labels = torch.zeros(100, 200, dtype=torch.long)
    labels[:, 150:] = 1
    config = AugmentConfig(scale=(1.0, 1.0), max_ratio=0.75)
    shares = [TrainTransform(INPUT, config, None)(image, labels)[1].float().mean() for _ in range(30)]
    assert sum(0.25 <= share <= 0.75 for share in shares) > 15
    ignored = torch.full((100, 200), 255)
    assert (TrainTransform(INPUT, config, None)(image, ignored)[1] == 255).all()


def test_photometric_distortion_leaves_labels_and_the_order_of_channels():
    image = Image.new("RGB", (32, 24), (200, 100, 50))
    config = AugmentConfig(scale=(1.0, 1.0), photometric=1.0, max_ratio=1.0)
    transform = TrainTransform(INPUT, config, None)
    seen = []
    for _ in range(10):
        pixels, labels = transform(image, torch.ones(24, 32, dtype=torch.long))
        assert (labels == 1).all()
        assert pixels[0].mean() > pixels[1].mean() > pixels[2].mean()
        seen.append(pixels.mean().item())
    assert len(set(seen)) == 10


def test_randomness_is_that_of_the_seed():
    transform = TrainTransform(INPUT, AugmentConfig(), None)
    pairs = []
    for seed in (1, 1, 2):
        seed_everything(seed)
        pairs.append(transform(*columns(80, 90)))
    assert torch.equal(pairs[0][0], pairs[1][0])
    assert torch.equal(pairs[0][1], pairs[1][1])
    assert not torch.equal(pairs[0][1], pairs[2][1])


def test_evaluation_leaves_the_size():
    image, labels = EvalTransform(INPUT)(*columns(35, 41))
    assert image.shape == (3, 35, 41)
    assert torch.equal(columns_of(image), labels)


def test_inputs_are_those_of_the_model():
    config = resolve_input(InputConfig(crop_size=64, std=(1.0, 1.0, 1.0)), "v2m_lite_nano")
    assert config.crop_size == (64, 64)
    assert config.mean == (0.485, 0.456, 0.406)
    assert config.std == (1.0, 1.0, 1.0)


def test_training_batches(masked_folder, tmp_path):
    data = open_train_data(str(masked_folder), tmp_path, INPUT, AugmentConfig(), None)
    for parts in TrainLoader(data, 4, workers=1).epoch(1):
        assert parts[0].images.shape == (4, 3, 24, 32)
        assert parts[0].targets.shape == (4, 24, 32)


def test_images_that_would_become_too_large_are_refused(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10_000)
    transform = TrainTransform(INPUT, AugmentConfig(), 100)
    with pytest.raises(ValueError, match="would be resized to"):
        transform(Image.new("RGB", (1000, 1)), torch.zeros(1, 1000, dtype=torch.int64))
