import os

import pytest
from PIL import Image
from PIL.ImageFile import ImageFile

from v2m.data import find_images
from v2m.data.image_files import (
    READ_FORMATS,
    formats,
    is_hidden,
    is_image,
    is_other_image,
    tell_other_images,
    walk_files,
)
from v2m.system.errors import DataError


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


@pytest.mark.parametrize(
    "name", ["a.jpg", "A.JPEG", "a.jfif", "a.gif", "a.avif", "a.jp2", "a.mpo", "a.TIFF", "x/a.bmp"]
)
def test_what_pillow_reads_is_an_image(name):
    assert is_image(name)
    assert not is_other_image(name)


@pytest.mark.parametrize("name", ["a.heic", "a.svg", "a.CR2", "a.eps", "a.fits", "a.wmf", "x/a.dng"])
def test_what_looks_like_an_image_is_none(name):
    assert not is_image(name)
    assert is_other_image(name)


@pytest.mark.parametrize(
    "name",
    [
        "a",
        "jpg",
        "a.txt",
        "a.pdf",
        "a.mpg",
        "a.h5",
        "Thumbs.db",
        ".DS_Store",
        "._a.jpg",
        "._a.heic",
        "a.jpg.txt",
    ],
)
def test_other_files_are_neither(name):
    assert not is_image(name)
    assert not is_other_image(name)


@pytest.mark.parametrize("name", [".git", "@eaDir", "__MACOSX", "#recycle", "$RECYCLE.BIN"])
def test_folders_of_the_system_are_hidden(name):
    assert is_hidden(name)


class HeifImageFile(ImageFile):
    """A plugin's."""


def test_plugins_of_pillow_are_taken(monkeypatch):
    assert not is_image("a.heic")
    Image.init()
    monkeypatch.setattr(Image, "ID", [*Image.ID, "HEIF"])
    monkeypatch.setitem(Image.OPEN, "HEIF", (HeifImageFile, None))
    monkeypatch.setitem(Image.EXTENSION, ".heic", "HEIF")
    assert "HEIF" in formats()
    assert is_image("a.heic")
    assert not is_other_image("a.heic")


def test_files_left_out_are_counted_and_named():
    assert tell_other_images("photos", ["photos/a.jpg", "photos/notes.txt"]) == []
    (line,) = tell_other_images("photos", ["p/b.svg", "p/a.HEIC", "p/c.heic", "p/d.jpg"])
    assert line.startswith(
        "photos: 3 files left out, of formats that Pillow does not read here (2 .heic, 1 .svg)"
    )
    assert "first p/b.svg" in line


def test_links_to_folders_are_followed_and_those_that_lead_back_are_not(tmp_path):
    photos, elsewhere = tmp_path / "photos", tmp_path / "elsewhere"
    for folder in (photos / "@eaDir" / "a.jpg", photos / "below", elsewhere):
        folder.mkdir(parents=True)
    for path in (
        "photos/a.jpg",
        "photos/@eaDir/a.jpg/SYNOPHOTO_THUMB_M.jpg",
        "photos/below/b.jpg",
        "elsewhere/c.jpg",
    ):
        Image.new("L", (2, 2)).save(tmp_path / path)
    (photos / "link").symlink_to(elsewhere)
    (photos / "below" / "back").symlink_to(photos)
    (elsewhere / "round").symlink_to(photos)
    names = ["a.jpg", "below/b.jpg", "link/c.jpg"]
    assert list(walk_files(photos)) == [str(photos / name) for name in names]
    assert find_images(photos) == [photos / name for name in names]


def test_a_folder_of_other_images_alone_says_so(tmp_path):
    (tmp_path / "a.heic").write_bytes(b"")
    with pytest.raises(DataError, match=r"holds no images \(\.jpg, .*; .*1 file left out.*\(1 \.heic\)"):
        find_images(tmp_path)


def test_links_are_followed_once_and_those_to_nothing_are_found(tmp_path):
    inside, outside = tmp_path / "images", tmp_path / "elsewhere"
    for folder in (inside / "below", outside):
        folder.mkdir(parents=True)
        Image.new("L", (2, 2)).save(folder / "0.png")
    (inside / "linked").symlink_to(outside)
    (inside / "linked again").symlink_to(outside)
    (inside / "below" / "up").symlink_to(tmp_path)
    (outside / "back").symlink_to(inside)
    for name in ("dead.png", "dead folder", ".hidden"):
        (inside / name).symlink_to(tmp_path / "gone")
    (inside / "notes.txt").write_text("no image")
    found = {str(path.relative_to(inside)) for path in find_images(inside)}
    links = {"dead.png", "dead folder"}
    assert links < found
    assert len(found - links) == len({(inside / name).resolve() for name in found - links}) == 2


def test_formats_that_pillow_gets_later_are_not_read_by_themselves(monkeypatch):
    Image.init()
    monkeypatch.setattr(Image, "ID", [*Image.ID, "NEW"])
    monkeypatch.setitem(Image.OPEN, "NEW", Image.OPEN["PNG"])
    monkeypatch.setitem(Image.EXTENSION, ".new", "NEW")
    assert set(formats()) <= set(READ_FORMATS)
    assert not is_image("a.new")


def test_pipes_are_no_images_to_look_for(tmp_path):
    os.mkfifo(tmp_path / "a.png")
    with pytest.raises(DataError, match=r"a\.png: neither a regular file nor a folder"):
        find_images(tmp_path / "a.png")
