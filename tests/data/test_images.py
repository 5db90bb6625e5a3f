import io
import pickle

import numpy as np
import pytest
from PIL import Image, features

from v2m.data import DataError, DecompressionBombError, UnreadableImageError, find_images, read_image
from v2m.data.images import decode_image


def test_sixteen_bits_are_reduced_to_eight_and_floats_refused(tmp_path):
    ramp = np.arange(0, 65536, 8192, dtype=np.uint16).reshape(1, 8)
    Image.fromarray(ramp).save(tmp_path / "ramp.png")
    Image.fromarray(ramp.astype(np.int32)).save(tmp_path / "ramp.tiff")
    for name in ("ramp.png", "ramp.tiff"):
        assert np.asarray(read_image(tmp_path / name)).tolist() == [list(range(0, 256, 32))]
    Image.fromarray(ramp.astype(np.float32) / 65535).save(tmp_path / "float.tiff")
    with pytest.raises(DataError, match=r"float\.tiff: not a readable image \(floating point"):
        read_image(tmp_path / "float.tiff")


def test_decompression_bombs_are_refused_and_large_images_read_without_a_warning(tmp_path, monkeypatch):
    Image.new("L", (100, 100)).save(tmp_path / "bomb.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 4999)
    with pytest.raises(DecompressionBombError, match=r"bomb\.png: not a readable image \(Image size"):
        read_image(tmp_path / "bomb.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 5001)
    assert read_image(tmp_path / "bomb.png").size == (100, 100)


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "bmp", "tif"])
def test_truncated_files_are_errors(tmp_path, suffix):
    pixels = np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8)
    path = tmp_path / f"image.{suffix}"
    Image.fromarray(pixels).save(path)
    assert read_image(path).size == (50, 40)
    content = path.read_bytes()
    for length in (0, 10, len(content) // 2, len(content) - 200):
        path.write_bytes(content[:length])
        with pytest.raises(UnreadableImageError) as caught:
            read_image(path)
        assert caught.value.name == str(path)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("format", ["PNG", "JPEG", "WEBP", "BMP", "TIFF", "GIF", "AVIF"])
def test_damaged_bytes_give_an_image_or_the_error_whatever_the_decoder_raises(format):
    if format == "AVIF" and not features.check("avif"):
        pytest.skip("PIL was built without AVIF")
    random = np.random.default_rng(0)
    file = io.BytesIO()
    Image.fromarray(random.integers(0, 256, (20, 30, 3), dtype=np.uint8)).save(file, format)
    outcomes = set()
    for _ in range(200):
        damaged = np.frombuffer(file.getvalue(), np.uint8).copy()
        damaged[random.integers(0, 300, 4)] = random.integers(0, 256, 4)
        try:
            outcomes.add(type(decode_image(io.BytesIO(damaged.tobytes()), "image")))
        except UnreadableImageError as error:
            outcomes.add(type(error))
    assert UnreadableImageError in outcomes


@pytest.mark.parametrize("header", [b"P6\n0 5\n255\n", b"P6\n5 0\n255\n"])
def test_images_without_a_pixel_are_unreadable(tmp_path, header):
    (tmp_path / "none.ppm").write_bytes(header)
    with pytest.raises(UnreadableImageError, match=r"none\.ppm: not a readable image \(empty"):
        read_image(tmp_path / "none.ppm")


def test_palettes_with_transparency_convert_without_a_warning(tmp_path):
    image = Image.new("P", (4, 3))
    image.putpalette([200, 40, 90, 1, 2, 3])
    image.save(tmp_path / "palette.png", transparency=b"\x00\x80")
    assert read_image(tmp_path / "palette.png").convert("RGB").getpixel((0, 0)) == (200, 40, 90)


def test_errors_travel_between_processes(tmp_path):
    for kind in (UnreadableImageError, DecompressionBombError):
        error = pickle.loads(pickle.dumps(kind("a.png", "empty")))
        assert (type(error), error.name, error.reason) == (kind, "a.png", "empty")
        assert str(error) == "a.png: not a readable image (empty)"
        assert isinstance(error, DataError)


def test_find_images(image_folder):
    (image_folder / "notes.txt").write_text("no image")
    (image_folder / ".hidden").mkdir()
    for place in (".hidden/0.png", "train/._0.png"):
        (image_folder / place).write_bytes(b"")
    found = find_images(image_folder)
    assert len(found) == len(list(image_folder.rglob("*.png"))) - 2
    assert found == sorted(found)
    assert find_images(found[0]) == found[:1]
    with pytest.raises(DataError, match="no such file or folder"):
        find_images(image_folder / "missing")
    (image_folder / "empty").mkdir()
    with pytest.raises(DataError, match="holds no images"):
        find_images(image_folder / "empty")
