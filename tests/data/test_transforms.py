import pickle
import random

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps
from timm.data import create_transform
from timm.data.auto_augment import NAME_TO_OP

from v2m.data import AugmentConfig, ImageSpec, eval_transform, train_transform
from v2m.data.errors import TransformError, UnreadableImageError
from v2m.data.transforms import apply, check_scaled, posterize
from v2m.recipes import RECIPES

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


def recipe_policies():
    """What ``augment.auto_augment`` is in any recipe."""
    found = {getattr(recipe.config.augment, "auto_augment", None) for recipe in RECIPES.values()}
    return sorted(found - {None})


POLICIES = [
    *recipe_policies(),
    "rand-m10-inc1",
    "rand-m0-n5-p1",
    "rand-m20-mmax20-inc1-n5-p1",
    "rand-m10-mstd101-inc1-tweights",
    "rand-m9-inc1-t3aw",
    "rand-m9-t3a",
    "augmix-m3-w3",
    "augmix-m10-mstd0-b1",
    "original",
    "original-mstd5",
    "originalr",
    "v0",
    "v0r",
    "3a",
]


@pytest.mark.parametrize("spec", [GRAY, COLOUR], ids=["gray", "colour"])
@pytest.mark.parametrize("policy", POLICIES)
def test_thousands_of_draws_of_the_policies_give_images(policy, spec):
    transform = train_transform(spec, AugmentConfig(scale=(0.5, 1.0), hflip=0.5, auto_augment=policy))
    pixels = np.random.default_rng(0).integers(0, 256, (3, 4, 3), dtype=np.uint8)
    image = Image.fromarray(pixels)
    random.seed(0)
    np.random.seed(0)
    for _ in range(2000 if policy in recipe_policies() else 200):
        assert transform(image).isfinite().all()


@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_posterize_keeps_the_highest_bits_and_none_is_black(mode):
    pixels = np.arange(256, dtype=np.uint8).reshape(16, 16)
    image = Image.fromarray(pixels).convert(mode)
    for bits in range(-4, 10):
        kept = np.asarray(posterize(image, bits))
        mask = 0 if bits < 1 else 0xFF if bits > 7 else 0xFF << (8 - bits) & 0xFF
        assert kept.tolist() == (np.asarray(image) & mask).tolist(), bits
        if 1 <= bits <= 8:
            assert kept.tolist() == np.asarray(ImageOps.posterize(image, bits)).tolist()


@pytest.mark.parametrize("policy", ["rand-m9-mstd0.5-inc1", "augmix-m3-w3", "originalr"])
def test_a_policy_draws_what_timm_draws(policy, monkeypatch):
    """Against timm's own operations, of which one is what it was before Pillow refused 0 bits."""

    def timms_posterize(image, bits_to_keep, **_):
        return image if bits_to_keep >= 8 else image.point(lambda value: value & -(1 << (8 - bits_to_keep)))

    augment = AugmentConfig(scale=(0.5, 1.0), hflip=0.5, auto_augment=policy)
    ours = train_transform(COLOUR, augment)
    for name in ("Posterize", "PosterizeIncreasing", "PosterizeOriginal"):
        monkeypatch.setitem(NAME_TO_OP, name, timms_posterize)
    timms = train_transform(COLOUR, augment)
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (12, 20, 3), dtype=np.uint8))
    for seed in range(60):
        tensors = []
        for transform in (ours, timms):
            random.seed(seed)
            np.random.seed(seed)
            torch.manual_seed(seed)
            tensors.append(transform(image))
        assert torch.equal(*tensors)


def test_a_failing_augmentation_names_its_setting_and_the_image():
    augment = AugmentConfig(scale=(0.5, 1.0), hflip=0.0, auto_augment="rand-n20-tweights")
    transform = train_transform(COLOUR, augment)
    with pytest.raises(TransformError) as caught:
        apply(transform, "a.png", Image.new("RGB", (9, 9)))
    text = r"a.png: cannot be prepared (augment.auto_augment 'rand-n20-tweights': "
    assert str(caught.value).startswith(text)
    assert "\n" not in str(caught.value)
    again = pickle.loads(pickle.dumps(caught.value))
    assert (type(again), str(again), again.name) == (TransformError, str(caught.value), "a.png")
    assert isinstance(again, UnreadableImageError)


def test_a_lack_of_memory_is_not_taken_for_a_bad_image():
    def fail(image):
        raise MemoryError

    with pytest.raises(MemoryError):
        apply(fail, "a.png", Image.new("RGB", (9, 9)))


def test_large_images_are_cropped_without_a_warning(monkeypatch):
    transform = train_transform(COLOUR, AugmentConfig(scale=(0.9, 1.0), hflip=0.0))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 900)
    assert apply(transform, "a.png", Image.new("RGB", (40, 40))).shape == (3, 12, 20)


@pytest.mark.parametrize("policy", ["rand-m9.5", "rand-x3", "augmix-mstdx1", "v1"])
def test_policies_that_cannot_be_parsed_are_named(policy):
    with pytest.raises(ValueError, match=f"augment.auto_augment is '{policy}', expected a policy"):
        train_transform(COLOUR, AugmentConfig(scale=(0.5, 1.0), hflip=0.0, auto_augment=policy))


@pytest.mark.parametrize("size", [(3000, 1), (1, 3001)])
def test_very_long_images_are_not_resized_whole(monkeypatch, size):
    resized, resize = [], Image.Image.resize

    def record(image, size, *args, **options):
        resized.append(size[0] * size[1])
        return resize(image, size, *args, **options)

    monkeypatch.setattr(Image.Image, "resize", record)
    image = Image.new("L", size)
    image.paste(255, (size[0] // 2 - 10, size[1] // 2 - 10, size[0] // 2 + 11, size[1] // 2 + 11))
    tensor = eval_transform(GRAY)(image)
    assert max(resized) <= 65 * 8 * 8
    torch.testing.assert_close(tensor, torch.full((1, 8, 8), 1.5))  # its centre


def test_images_of_usual_shapes_are_resized_whole():
    pixels = np.random.default_rng(0).integers(0, 256, (10, 640), dtype=np.uint8)
    expected = create_transform(**GRAY.timm_config, is_training=False)(Image.fromarray(pixels))
    torch.testing.assert_close(eval_transform(GRAY)(Image.fromarray(pixels)), expected, rtol=0, atol=0)


def test_images_that_would_become_too_large_are_refused(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 500)
    check_scaled(10, 100)
    with pytest.raises(ValueError, match="would be resized to 101x10 pixels, more than 1,000"):
        check_scaled(10, 101)
