import io
import os
import pickle
import socket
import struct
import zlib
from contextlib import suppress

import numpy as np
import pytest
from PIL import Image, ImageOps, features

from tests.data.formats import as_parquet, as_tars, as_webdataset
from v2m.data import open_dataset, read_image
from v2m.data.classes.check import inspect_images
from v2m.data.errors import DecompressionBombError, UnreadableImageError
from v2m.data.image_files import formats
from v2m.data.images import decode_image, fit_annotations, tell_hidden_turns
from v2m.data.masks.dataset import read_mask
from v2m.system.errors import DataError


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


ARROW = np.arange(3 * 5 * 7, dtype=np.uint8).reshape(5, 7, 3) * 2


def write_turned(path, orientation, pixels=ARROW):
    """An image file with an EXIF orientation, without loss where the format can."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = dict(lossless=True) if path.suffix == ".webp" else dict(quality=95)
    Image.fromarray(pixels).save(path, exif=exif, **options)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "tif", "avif"])
def test_images_are_upright(tmp_path, suffix, orientation):
    if suffix == "avif" and not features.check("avif"):
        pytest.skip("PIL was built without AVIF")
    path = tmp_path / f"image.{suffix}"
    write_turned(path, orientation)
    with Image.open(path) as image:
        expected = ImageOps.exif_transpose(image)
    assert expected.size == ((5, 7) if orientation > 4 else (7, 5))
    assert read_image(path).tobytes() == expected.tobytes()


@pytest.mark.parametrize(
    "exif", [b"", b"Exif\0\0", b"Exif\0\0II*\0\x08\0\0\0\xff\xff", b"Exif\0\0nonsense" * 9]
)
def test_damaged_exif_leaves_an_image_as_it_is(tmp_path, exif):
    Image.fromarray(ARROW).save(tmp_path / "image.jpg", exif=exif)
    assert read_image(tmp_path / "image.jpg").size == (7, 5)


def test_deep_and_palette_images_are_upright_too(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    pixels = np.arange(6, dtype=np.uint16).reshape(2, 3) * 10_000
    Image.fromarray(pixels).save(tmp_path / "deep.png", exif=exif)
    assert np.asarray(read_image(tmp_path / "deep.png")).tolist() == np.rot90(pixels >> 8, -1).tolist()
    palette = Image.new("P", (4, 3))
    palette.putpalette([200, 40, 90, 1, 2, 3])
    palette.save(tmp_path / "palette.png", transparency=b"\x00\x80", exif=exif)
    assert read_image(tmp_path / "palette.png").size == (3, 4)


def test_annotations_of_stored_pixels_get_these(tmp_path):
    path = tmp_path / "image.png"
    write_turned(path, 6)
    upright = read_image(path)
    assert upright.size == (5, 7)
    assert fit_annotations(upright, path, (5, 7)) is upright
    assert np.asarray(fit_annotations(upright, path, (7, 5))).tolist() == ARROW.tolist()
    assert fit_annotations(upright, path, (9, 9)) is upright
    write_turned(path, 1)
    assert fit_annotations(read_image(path), path, (5, 7)).size == (7, 5)


@pytest.mark.parametrize("suffix", ["jpg", "png"])
def test_turns_that_sizes_do_not_show_are_told(tmp_path, suffix):
    def told(orientation, pixels=ARROW):
        write_turned(tmp_path / f"a.{suffix}", orientation, pixels)
        return tell_hidden_turns("labels.json", 2, lambda i: str(tmp_path / (f"a.{suffix}", "gone.jpg")[i]))

    for orientation in (1, 5, 6, 7, 8):
        assert told(orientation) == []
    for orientation, pixels in ((2, ARROW), (3, ARROW), (4, ARROW), (6, ARROW[:, :5])):
        (line,) = told(orientation, pixels)
        assert line.startswith("labels.json: 1 of 2 images that were looked at have an EXIF orientation")
        assert str(tmp_path / f"a.{suffix}") in line
    assert told(1, ARROW[:, :5]) == []


PROGRAM = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n%%EOF\n"


@pytest.fixture
def ghostscript(tmp_path, monkeypatch):
    """What a planted Ghostscript leaves when it is run."""
    left, program = tmp_path / "it was run", tmp_path / "bin" / "gs"
    program.parent.mkdir()
    program.write_text(f"#!/bin/sh\n: > '{left}'\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(program.parent), prepend=os.pathsep)
    monkeypatch.setattr("PIL.EpsImagePlugin.gs_binary", None)
    with suppress(Exception), Image.open(io.BytesIO(PROGRAM)) as image:
        image.load()
    assert left.exists()  # so Pillow on its own does run it
    left.unlink()
    return left


def test_programs_are_never_run_whatever_their_files_are_called(tmp_path, ghostscript):
    """An EPS file is a program, for Ghostscript."""
    for name in ("a.png", "a.jpg", "a.eps"):
        (tmp_path / name).write_bytes(PROGRAM)
        for read in (read_image, read_mask):
            with pytest.raises(UnreadableImageError, match=r"of no known format|Pillow does not read"):
                read(tmp_path / name)
    assert not ghostscript.exists()


@pytest.mark.parametrize("layout", [None, as_tars, as_webdataset, as_parquet])
def test_programs_are_never_run_in_any_layout(tmp_path, image_folder, ghostscript, layout):
    source = image_folder
    (source / "train" / "red" / "0.png").write_bytes(PROGRAM)
    if layout:
        source = tmp_path / "packed"
        layout(image_folder, source)
    data = open_dataset(str(source), "train", tmp_path)
    unreadable = [facts.detail for facts in inspect_images(data, 0) if facts.kind == "unreadable"]
    assert unreadable == ["empty, or of no known format"]
    failed = 0
    for index in range(len(data)):
        try:
            data[index]
        except UnreadableImageError:
            failed += 1
    assert failed == 1
    assert not ghostscript.exists()


@pytest.mark.parametrize("format", ["EPS", "FITS", "IPTC", "MPEG", "SPIDER", "WMF"])
def test_formats_that_are_left_out_are_not_opened(format):
    assert format not in formats()
    assert format in Image.OPEN


@pytest.mark.parametrize("kind", ["pipe", "socket", "device", "folder"])
def test_what_is_no_regular_file_is_unreadable_and_never_waited_for(tmp_path, monkeypatch, kind):
    path = tmp_path / "a.png"
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "socket":
        monkeypatch.chdir(tmp_path)  # names of sockets are short
        with socket.socket(socket.AF_UNIX) as server:
            server.bind("a.png")
    elif kind == "device":
        path.symlink_to("/dev/zero")
    else:
        path.mkdir()
    for read in (read_image, read_mask):
        with pytest.raises(UnreadableImageError, match=r"a\.png: not a readable image \(.*no regular file"):
            read(path)


def test_huge_files_are_not_read(tmp_path):
    Image.new("L", (2, 2)).save(tmp_path / "a.webp")
    assert read_image(tmp_path / "a.webp").size == (2, 2)
    with open(tmp_path / "a.webp", "rb+") as file:
        file.truncate(2**40)
    with pytest.raises(
        UnreadableImageError, match=r"a\.webp: .*1,099,511,627,776 bytes, expected up to 2,147"
    ):
        read_image(tmp_path / "a.webp")


def png_of(*chunks, side=4):
    """A PNG file with these chunks before its pixels, that says it has this side."""

    def chunk(kind, content):
        return (
            struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
        )

    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    pixels = zlib.compress(b"\0" * 52)
    parts = [(b"IHDR", header), *chunks, (b"IDAT", pixels), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in parts)


@pytest.mark.parametrize(
    ("kind", "start"), [(b"zTXt", b"a\0\0"), (b"iTXt", b"a\0\1\0\0\0"), (b"iCCP", b"a\0\0")]
)
def test_texts_and_profiles_that_unpack_without_an_end_are_refused(kind, start):
    assert decode_image(io.BytesIO(png_of((kind, start + zlib.compress(b"x" * 1000)))), "a").size == (4, 4)
    with pytest.raises(UnreadableImageError, match=r"a: not a readable image .*too large"):
        decode_image(io.BytesIO(png_of((kind, start + zlib.compress(bytes(50_000_000), 9)))), "a")


def test_sizes_that_are_only_claimed_are_refused():
    with pytest.raises(DecompressionBombError, match=r"4290250000 pixels\) exceeds limit"):
        decode_image(io.BytesIO(png_of(side=65500)), "a")
    file = io.BytesIO()
    Image.new("RGB", (16, 16)).save(file, "JPEG")
    content = file.getvalue()
    place = content.index(b"\xff\xc0") + 5
    claimed = content[:place] + struct.pack(">HH", 65500, 65500) + content[place + 4 :]
    with pytest.raises(DecompressionBombError, match=r"4290250000 pixels\) exceeds limit"):
        decode_image(io.BytesIO(claimed), "a")
