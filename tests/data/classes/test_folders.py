import os
import shutil
import subprocess

import pytest
from PIL import Image

from tests.data.formats import as_parquet, as_tars, as_webdataset, contents, write_tar
from v2m.data import find_splits, open_dataset
from v2m.data.errors import UnreadableImageError
from v2m.system.errors import DataError


def test_links_to_a_folder_above_give_no_image_twice(image_folder):
    before = len(open_dataset(str(image_folder), "train", image_folder))
    folder = image_folder / "train" / "red"
    (folder / "loop").symlink_to(folder)
    assert len(open_dataset(str(image_folder), "train", image_folder)) == before


def test_images_of_many_formats_at_any_depth_are_read_and_hidden_ones_not(image_folder, tmp_path):
    picture = Image.new("RGB", (9, 7), "red")
    red = image_folder / "train" / "red"
    (red / "more of it").mkdir()
    for suffix in ("webp", "JPEG", "bmp", "tif"):
        picture.save(red / "more of it" / f"ünusual name.{suffix}")
    (red / ".trash").mkdir()
    picture.save(red / ".trash" / "old.png")
    (red / "._0.png").write_bytes(b"what macOS leaves")
    (red / "notes.txt").write_text("no image")
    (image_folder / "train" / ".ipynb_checkpoints").mkdir()
    data = open_dataset(str(image_folder), "train", tmp_path)
    assert len(data) == 24 + 4
    assert data.classes == ["blue", "green", "red"]
    assert {data.read(i).size for i in range(24, 28)} == {(9, 7)}


def test_empty_classes_are_named_in_training_and_allowed_in_validation(image_folder, tmp_path):
    for split in ("train", "val"):
        for image in (image_folder / split / "green").iterdir():
            image.unlink()
    with pytest.raises(DataError, match="train has no images of the classes green"):
        open_dataset(str(image_folder), "train", tmp_path)
    assert sorted(open_dataset(str(image_folder), "val", tmp_path).targets) == [0] * 4 + [2] * 4
    (image_folder / "val" / "purple").mkdir()
    with pytest.raises(DataError, match="classes that are not known: purple"):
        open_dataset(str(image_folder), "val", tmp_path)


def test_folders_without_classes_or_images_are_named(image_folder, tmp_path):
    for path in (image_folder / "val").rglob("*.png"):
        path.unlink()
    with pytest.raises(DataError, match=r"val holds no images \(\.jpg"):
        open_dataset(str(image_folder), "val", tmp_path)
    shutil.rmtree(image_folder / "val")
    (image_folder / "val").mkdir()
    with pytest.raises(DataError, match=r"val has no class folders, expected val/<class>/<image>, or a list"):
        open_dataset(str(image_folder), "val", tmp_path)


def test_an_image_that_went_away_is_named(image_folder, tmp_path):
    data = open_dataset(str(image_folder), "val", tmp_path)
    (image_folder / "val" / "blue" / "0.png").unlink()
    with pytest.raises(UnreadableImageError, match=r"blue/0\.png: not a readable image \(.*No such file"):
        data[0]


def test_files_of_the_system_are_left_out_and_images_that_are_not_read_are_told(image_folder, tmp_path):
    red = image_folder / "train" / "red"
    for folder in (image_folder / "train" / "@eaDir", red / "@eaDir" / "0.png"):
        folder.mkdir(parents=True)
        Image.new("RGB", (9, 7)).save(folder / "SYNOPHOTO_THUMB_M.jpg")
    for name in ("Thumbs.db", ".DS_Store", "._0.jfif"):
        (red / name).write_bytes(b"")
    assert open_dataset(str(image_folder), "train", tmp_path).warnings == []
    for name in ("a.HEIC", "b.heic", "c.svg"):
        (red / name).write_bytes(b"")
    for suffix in ("jfif", "gif"):
        Image.new("RGB", (9, 7)).save(red / f"new.{suffix}")
    data = open_dataset(str(image_folder), "train", tmp_path)
    assert (len(data), data.classes) == (26, ["blue", "green", "red"])
    (line,) = data.warnings
    assert line == (
        f"{image_folder / 'train'}: 3 files left out, of formats that Pillow does not read here "
        f"(2 .heic, 1 .svg), first {red / 'a.HEIC'}; convert them to .jpg or .png"
    )


@pytest.mark.parametrize("make", [None, as_tars, as_webdataset, as_parquet])
def test_photos_are_upright_whatever_they_are_in(image_folder, tmp_path, make):
    exif = Image.Exif()
    exif[0x0112] = 6
    for path in image_folder.rglob("*.png"):
        with Image.open(path) as image:
            image.save(path, exif=exif)
    source = tmp_path / "packed" if make else image_folder
    if make:
        make(image_folder, source)
    data = open_dataset(str(source), "train", tmp_path)
    assert {data.read(i).size for i in range(len(data))} == {(10, 14)}


def test_classes_of_two_unicode_forms_are_one(image_folder, tmp_path):
    """macOS and some archives write accents as characters of their own."""
    (image_folder / "train" / "blue").rename(image_folder / "train" / "bl\u00e9")
    (image_folder / "val" / "blue").rename(image_folder / "val" / "ble\u0301")
    (image_folder / "train" / "green").rename(image_folder / "train" / "ble\u0301")
    data = open_dataset(str(image_folder), "train", tmp_path)
    assert data.classes == ["bl\u00e9", "red"]
    assert data.targets == [0] * 16 + [1] * 8
    shutil.rmtree(image_folder / "val" / "green")
    for classes in (None, ["red", "ble\u0301"]):
        val = open_dataset(str(image_folder), "val", tmp_path, classes)
        assert [val.classes[target] for target in val.targets] == ["bl\u00e9"] * 4 + ["red"] * 4


def as_tiny_imagenet(source, root):
    """The image folder as Tiny ImageNet is laid out; its pictures to test on have no classes."""
    names = sorted(path.name for path in (source / "train").iterdir())
    for name in names:
        shutil.copytree(source / "train" / name, root / "train" / name / "images")
        (root / "train" / name / f"{name}_boxes.txt").write_text("0.png\t0\t0\t9\t9\n")
    for split in ("val", "test"):
        (root / split / "images").mkdir(parents=True)
    lines = []
    for number, path in enumerate(sorted((source / "val").glob("*/*.png"))):
        shutil.copy(path, root / "val" / "images" / f"val_{number}.png")
        shutil.copy(path, root / "test" / "images" / f"test_{number}.png")
        lines.append(f"val_{number}.png\t{path.parent.name}\t0\t0\t9\t9\n")
    (root / "val" / "val_annotations.txt").write_text("".join(reversed(lines)))
    (root / "wnids.txt").write_text("".join(f"{name}\n" for name in reversed(names)))
    return root


@pytest.fixture
def tiny_imagenet(image_folder, tmp_path):
    return as_tiny_imagenet(image_folder, tmp_path / "tiny")


def test_tiny_imagenet_is_read_as_it_is(tiny_imagenet, image_folder, tmp_path):
    for split in ("train", "val"):
        assert contents(tiny_imagenet, split, tmp_path) == contents(image_folder, split, tmp_path)
    val = open_dataset(str(tiny_imagenet), "val", tmp_path)
    assert [val.classes[i] for i in val.targets] == ["red"] * 4 + ["green"] * 4 + ["blue"] * 4
    assert list(find_splits(str(tiny_imagenet), tmp_path)) == ["train", "val"]


def test_a_flat_folder_needs_a_list(tiny_imagenet, tmp_path):
    """As ImageNet's validation images, from the archive."""
    listed = tiny_imagenet / "val" / "val_annotations.txt"
    for image in (tiny_imagenet / "val" / "images").iterdir():
        image.rename(tiny_imagenet / "val" / image.name)
    (tiny_imagenet / "val" / "images").rmdir()
    assert len(open_dataset(str(tiny_imagenet), "val", tmp_path)) == 12
    listed.unlink()
    with pytest.raises(DataError) as error:
        open_dataset(str(tiny_imagenet), "val", tmp_path)
    assert str(error.value) == (
        f"data: {tiny_imagenet}/val has images, but no class folders, expected val/<class>/<image>, or a "
        "list val/val_annotations.txt with a line IMAGE<tab>CLASS for each image"
    )


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda text: text + "x.png\tred\n", "names images that are not in .*/val/images: x.png"),
        (lambda text: text.partition("\n")[2], "has images that are not in .*_annotations.txt: val_11.png"),
        (lambda text: text * 2, "line 13 has val_11.png again"),
        (
            lambda text: text.replace("\t", " "),
            "line 1 is 'val_11.png red 0 0 9 9', expected IMAGE<tab>CLASS",
        ),
        (lambda text: text.replace("red", "pink"), "has classes that are not known: pink"),
    ],
)
def test_a_list_that_does_not_fit_its_images_is_told(tiny_imagenet, tmp_path, change, words):
    listed = tiny_imagenet / "val" / "val_annotations.txt"
    listed.write_text(change(listed.read_text()))
    with pytest.raises(DataError, match=words):
        open_dataset(str(tiny_imagenet), "val", tmp_path)


def test_links_of_classes_lead_into_no_other_class_and_nowhere_twice(image_folder, tmp_path):
    train, elsewhere = image_folder / "train", tmp_path / "elsewhere"
    elsewhere.mkdir()
    (train / "red" / "0.png").rename(elsewhere / "0.png")
    (train / "red" / "moved").symlink_to(elsewhere)
    before = len(open_dataset(str(image_folder), "train", tmp_path))
    assert before == 24
    for name in ("red", "green", "blue"):
        (train / name / "up").symlink_to(train)
        (train / name / "root").symlink_to(tmp_path)
        (train / name / "again").symlink_to(elsewhere)
        (train / name / "beside").symlink_to(train / "red")
    (elsewhere / "back").symlink_to(image_folder)
    data = open_dataset(str(image_folder), "train", tmp_path)
    real = [os.path.realpath(data.name(index)) for index in range(len(data))]
    assert len(real) == len(set(real))
    inside = [
        (path, data.classes[t]) for path, t in zip(real, data.targets, strict=True) if "/train/" in path
    ]
    assert len(inside) == 23
    assert all(path.startswith(f"{train.resolve()}/{name}/") for path, name in inside)


def test_a_class_folder_may_be_a_link(image_folder, tmp_path):
    (image_folder / "train" / "red").rename(tmp_path / "photos")
    (image_folder / "train" / "red").symlink_to(tmp_path / "photos")
    assert len(open_dataset(str(image_folder), "train", tmp_path)) == 24


def test_folders_nest_deeply(tmp_path):
    folder = tmp_path / "train" / "red"
    folder.mkdir(parents=True)
    here = os.open(folder, os.O_RDONLY)
    try:
        for _ in range(1200):
            os.mkdir("a", dir_fd=here)
            below = os.open("a", os.O_RDONLY, dir_fd=here)
            os.close(here)
            here = below
        with pytest.raises(DataError, match="holds no images"):
            open_dataset(str(tmp_path), "train", tmp_path)
    finally:
        os.close(here)
        subprocess.run(["rm", "-rf", folder], check=True)  # Python's own removal does not go so deep


def test_a_pipe_is_no_list_of_classes(image_folder, tmp_path):
    write_tar(tmp_path / "d" / "train.tar", {"a.png": b"", "a.cls": b"0"})
    os.mkfifo(tmp_path / "d" / "classes.txt")
    with pytest.raises(DataError, match=r"classes\.txt is no regular file"):
        open_dataset(str(tmp_path / "d"), "train", tmp_path)


def test_a_link_to_itself_is_one_unreadable_image(image_folder, tmp_path):
    loop = image_folder / "train" / "red" / "loop.png"
    loop.symlink_to("loop.png")
    data = open_dataset(str(image_folder), "train", tmp_path)
    place = [data.name(i) for i in range(len(data))].index(str(loop))
    with pytest.raises(UnreadableImageError, match="symbolic links"):
        data[place]
