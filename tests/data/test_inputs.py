"""Images in whatever form people have them."""

import numpy as np
import pytest
import torch
from PIL import Image

from v2m.data.images import read_image
from v2m.data.inputs import as_image
from v2m.system.errors import DataError


@pytest.fixture
def pixels():
    return np.random.default_rng(0).integers(0, 256, (6, 9, 4), dtype=np.uint8)


@pytest.mark.parametrize(("channels", "mode"), [(1, "L"), (3, "RGB"), (4, "RGBA")])
def test_every_form_of_an_image_is_the_same_image(tmp_path, pixels, channels, mode):
    array = pixels[..., :channels]
    image = Image.fromarray(array[..., 0] if channels == 1 else array)
    image.save(tmp_path / "image.png")
    expected = read_image(tmp_path / "image.png")
    tensor = torch.from_numpy(array).permute(2, 0, 1)
    for given in (
        str(tmp_path / "image.png"),
        tmp_path / "image.png",
        image,
        Image.open(tmp_path / "image.png"),
        array,
        array / 255,
        (array / 255).astype(np.float32),
        tensor,
        tensor / 255,
        tensor.double().div(255).requires_grad_(),
    ):
        found = as_image(given)
        assert (found.mode, found.size) == (mode, (9, 6))
        assert np.array_equal(found, expected)


def test_gray_arrays_need_no_axis_of_channels(pixels):
    for given in (pixels[..., 0], torch.from_numpy(pixels[..., 0])):
        assert np.array_equal(as_image(given), pixels[..., 0])


def test_deep_arrays_and_turned_images_are_read_as_files(tmp_path):
    deep = np.arange(54, dtype=np.uint16).reshape(6, 9) * 1000
    Image.fromarray(deep).save(tmp_path / "deep.png")
    assert np.array_equal(as_image(deep), read_image(tmp_path / "deep.png"))
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (9, 6)).save(tmp_path / "turned.jpg", exif=exif)
    with Image.open(tmp_path / "turned.jpg") as image:
        assert as_image(image).size == (6, 9)


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ("nowhere.jpg", "nowhere.jpg: not a readable image (there is no such file)"),
        (".", ".: not a readable image (a folder, expected a file; name the images in it)"),
        (np.zeros((3, 6, 9), np.uint8), "array [3, 6, 9] of uint8: not a readable image (shape [3, 6, 9]"),
        (torch.zeros(6, 9, 3), "tensor [6, 9, 3] of float32: not a readable image (shape [6, 9, 3]"),
        (np.zeros((0, 9, 3), np.uint8), "it has no pixels"),
        (np.zeros(9, np.uint8), "shape [9]"),
        (np.zeros((6, 9), np.int64), "values of type int64, expected uint8, or floating point in 0..1"),
        (np.zeros((6, 9), bool), "values of type bool"),
        (np.zeros((6, 9, 3), np.uint16), "values of type uint16"),
        (np.full((6, 9), 255.0), "floating point values from 255 to 255, expected 0..1, not yet normalised"),
        (torch.full((3, 6, 9), -0.5), "from -0.5 to -0.5"),
        (np.full((6, 9), np.nan), "from nan to nan"),
        (7, "int: no image, expected a path"),
        (None, "NoneType: no image"),
    ],
)
def test_what_is_no_image_is_told_in_a_line(given, reason):
    with pytest.raises(DataError) as caught:
        as_image(given)
    assert reason in str(caught.value)
    assert "\n" not in str(caught.value)
