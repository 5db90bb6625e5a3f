import numpy as np
import pytest
from PIL import Image

from v2m.data import read_image
from v2m.data.depth import find_depth
from v2m.data.errors import UnreadableImageError

RAMP = np.arange(0, 256, 5, dtype=np.uint8).reshape(4, 13)


def written(path, pixels, **options):
    Image.fromarray(pixels).save(path, **options)
    return path


@pytest.mark.parametrize("suffix", ["png", "tiff"])
@pytest.mark.parametrize(("bits", "name"), [(8, "8 bit"), (12, "12 bit"), (16, "16 bit")])
def test_16_bit_files_are_read_by_the_bits_that_hold_their_values(tmp_path, suffix, bits, name):
    """The same picture, in 8, 12 or all 16 bits of each pixel."""
    path = written(tmp_path / f"a.{suffix}", RAMP.astype(np.uint16) << (bits - 8))
    assert np.asarray(read_image(path)).tolist() == RAMP.tolist()
    with Image.open(path) as image:
        assert image.mode == "I;16"
        assert find_depth(image).name == name


@pytest.mark.parametrize("bits", [8, 12, 16])
def test_32_bit_files_likewise(tmp_path, bits):
    path = written(tmp_path / "a.tiff", RAMP.astype(np.int32) << (bits - 8))
    assert np.asarray(read_image(path)).tolist() == RAMP.tolist()


def test_big_endian_files_likewise(tmp_path):
    image = Image.frombytes("I;16B", (13, 4), RAMP.astype(">u2").tobytes())
    image.save(tmp_path / "a.tiff")
    assert np.asarray(read_image(tmp_path / "a.tiff")).tolist() == RAMP.tolist()


def test_lower_bits_are_cut_off(tmp_path):
    ramp = np.arange(0, 65536, 8191, dtype=np.uint16).reshape(1, 9)
    assert np.asarray(read_image(written(tmp_path / "a.png", ramp))).tolist() == (ramp >> 8).tolist()


def test_pgm_files_say_their_range_themselves(tmp_path):
    for most, values, expected in ((4095, (0, 100, 2000), [0, 6, 125]), (65535, (0, 1000, 3000), [0, 3, 11])):
        pixels = np.array(values, ">u2").tobytes()
        (tmp_path / "a.pgm").write_bytes(f"P5 3 1 {most}\n".encode() + pixels)
        assert np.abs(np.asarray(read_image(tmp_path / "a.pgm"))[0] - expected).max() <= 1


@pytest.mark.parametrize(("white", "name"), [(1, "float 0..1"), (255, "float 0..255")])
def test_floats_are_of_one_of_two_ranges(tmp_path, white, name):
    path = written(tmp_path / "a.tiff", (RAMP / 255 * white).astype(np.float32))
    assert np.asarray(read_image(path)).tolist() == RAMP.tolist()
    with Image.open(path) as image:
        assert find_depth(image).name == name


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ([0.0, np.nan], "hold NaN or infinity"),
        ([0.0, np.inf], "hold NaN or infinity"),
        ([-np.inf, np.inf], "hold NaN or infinity"),
        ([-1.0, 1.0], r"from -1 to 1, expected 0\.\.1 or 0\.\.255"),
        ([0.0, 1.5], "from 0 to 1.5, expected"),
        ([0.0, 65535.0], "from 0 to 6.554e"),
    ],
)
def test_floats_of_no_known_range_are_named(tmp_path, values, reason):
    path = written(tmp_path / "a.tiff", np.array([values], np.float32))
    with pytest.raises(
        UnreadableImageError, match=rf"a\.tiff: not a readable image \(floating point.*{reason}"
    ):
        read_image(path)


@pytest.mark.parametrize("values", [(-1024, 3071), (0, 65536), (0, 2**31 - 1)])
def test_whole_numbers_of_no_known_range_are_named(tmp_path, values):
    path = written(tmp_path / "a.tiff", np.array([values], np.int32))
    with pytest.raises(
        UnreadableImageError, match=f"gray values from {values[0]} to {values[1]}, expected 0..65535"
    ):
        read_image(path)


def test_black_images_stay_black(tmp_path):
    for type_ in (np.uint16, np.int32, np.float32):
        assert not np.asarray(read_image(written(tmp_path / "a.tiff", np.zeros((2, 3), type_)))).any()
