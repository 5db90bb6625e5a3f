import json
import os
import unicodedata

import pytest
from PIL import Image

from tests.data.coco.made import HEIGHT, WIDTH, write
from tests.data.coco.made import content as content
from v2m.data.coco.open import open_coco
from v2m.data.errors import UnreadableImageError
from v2m.system.errors import DataError


def rename(content, root, names, files, **options):
    """Give the three images these names, and these files in ``train``; what is said, and where they are."""
    write(root, content)
    for image in content["images"]:
        (root / "train" / image["file_name"]).unlink()
    for image, name in zip(content["images"], names, strict=True):
        image["file_name"] = name
    for file in files:
        path = root / "train" / file
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (WIDTH, HEIGHT)).save(path)
    (root / "annotations" / "instances_train.json").write_text(json.dumps(content))
    data = open_coco(str(root), "train", **options)
    start = f"{root / 'train'}{os.sep}"
    return data, [data.name(i).removeprefix(start) for i in range(3)]


@pytest.mark.parametrize(
    ("names", "files"),
    [
        (["images\\7.png", "images\\5.png", "9.png"], ["7.png", "5.png", "9.png"]),
        (["a\\7.png", "b\\7.png", "c/9.png"], ["a/7.png", "b/7.png", "c/9.png"]),
        (["C:\\me\\train\\7.png", "/data/upload/5.png", "../train/9.png"], ["7.png", "5.png", "9.png"]),
        (["7.png", "x/5.png", "y/9.png"], ["deep/7.png", "sub/x/5.png", "9.png"]),
        (["7.PNG", "Ä.png", "https://host/9.png"], ["7.png", "ä.png", "9.png"]),
    ],
)
def test_files_are_found_where_only_one_can_be_meant(content, tmp_path, names, files):
    data, found = rename(content, tmp_path, names, files)
    assert found == files
    assert data.missing == []
    assert [data.read(i).size for i in range(3)] == [(WIDTH, HEIGHT)] * 3
    (line,) = data.warnings
    assert f" of 3 images have a file_name that is no path in {tmp_path / 'train'}; files of that" in line


@pytest.mark.parametrize(("ours", "theirs"), [("NFC", "NFD"), ("NFD", "NFC")])
def test_forms_of_unicode_are_the_same_name(content, tmp_path, ours, theirs):
    names = ["ä/é.png", "ü.png", "한.png"]
    given, files = ([unicodedata.normalize(form, name) for name in names] for form in (ours, theirs))
    assert rename(content, tmp_path, given, files)[1] == files


def test_names_that_fit_are_left_alone(content, tmp_path):
    names = ["a/7.png", "b\\5.png", "9.png"]
    data, found = rename(content, tmp_path, names, [*names, "b/5.png", "c/9.png", "A/7.PNG"])
    assert found == names
    assert data.warnings == []


@pytest.mark.parametrize(
    ("names", "files"),
    [
        (["a/7.png", "b/7.png", "9.png"], ["7.png", "9.png"]),
        (["x/7.png", "7.png", "9.png"], ["7.png", "9.png"]),
        (["7.png", "9.png", "9.png"], ["a/7.png", "b/7.png", "9.png"]),
        (["7.png", "9.png", "9.png"], ["9.png"]),
    ],
)
def test_what_may_be_several_files_or_none_is_missing(content, tmp_path, names, files):
    data, found = rename(content, tmp_path, names, files)
    assert data.missing == [name for name in names if name not in files]
    is_read = [(tmp_path / "train" / name).exists() for name in found]
    assert is_read == [name in files for name in names]
    line = data.warnings[-1]
    assert line.endswith("file_name should be the path of an image in that folder")
    assert f"{len(data.missing)} of 3 images are not in {tmp_path / 'train'}, the first is " in line


def test_one_file_of_two_images_is_told(content, tmp_path):
    names = ["9.png", "9.png", "x/9.png"]
    data, _ = rename(content, tmp_path, names, ["9.png"])
    shared, _ = (line.removeprefix(f"{data.source}: ") for line in data.warnings)
    assert shared == (
        "1 of 3 images have the file of another one, the first is 9.png; objects of the one are background "
        "in the other: give them one image_id"
    )
    assert shared in str(data.renamings)


def test_nothing_outside_of_the_folder_is_read(content, tmp_path):
    for name in ("secret.png", "train-secret.png"):
        Image.new("RGB", (WIDTH, HEIGHT)).save(tmp_path / name)
    names = [str(tmp_path / "secret.png"), "../train-secret.png", ".."]
    with pytest.raises(DataError) as caught:
        rename(content, tmp_path, names, [])
    told = str(caught.value)
    assert told.startswith(
        f"data: none of the 3 images of {tmp_path / 'annotations' / 'instances_train.json'}"
    )
    assert told.endswith(
        f"; 3 of them lead out of it, the first is {names[0]}: --allow_outside true reads them"
    )


def beside(root):
    """A colour image in a folder beside that of the data."""
    path = root / "shared" / "x.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (WIDTH, HEIGHT), "lime").save(path)
    return path


def lime(data):
    """Which of the images are that one."""
    return [data.read(i).getpixel((0, 0)) == (0, 255, 0) for i in range(len(data))]


@pytest.mark.parametrize("climbing", ["../../shared/x.png", "a/../../../shared/x.png"])
def test_names_that_lead_outside_are_missing_and_told(content, tmp_path, climbing):
    absolute = str(beside(tmp_path))
    data, found = rename(content, tmp_path / "coco", ["7.png", absolute, climbing], ["7.png"])
    assert data.missing == [absolute, climbing]
    assert not any(os.path.exists(tmp_path / "coco" / "train" / name) for name in found[1:])
    (line,) = data.warnings
    assert line.startswith(f"{data.source}: 2 of 3 images are not in ")
    assert line.endswith(
        f"; 2 of them lead out of it, the first is {absolute}: --allow_outside true reads them"
    )


def test_names_that_lead_outside_are_read_where_that_is_allowed(content, tmp_path):
    names = ["7.png", str(beside(tmp_path)), "../../shared/x.png"]
    data, _ = rename(content, tmp_path / "coco", names, ["7.png"], allow_outside=True)
    assert data.missing == []
    assert lime(data) == [False, True, True]
    (line,) = data.warnings
    assert "1 of 3 images have the file of another one" in line


def test_a_file_in_the_folder_goes_before_one_outside(content, tmp_path):
    names = [str(beside(tmp_path)), "5.png", "9.png"]
    data, found = rename(content, tmp_path / "coco", names, ["x.png", "5.png", "9.png"], allow_outside=True)
    assert found == ["x.png", "5.png", "9.png"]
    assert lime(data) == [False] * 3


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes")
def test_what_is_no_regular_file_outside_is_missing(content, tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    names = ["../../pipe.png", "../..", "../gone.png"]
    with pytest.raises(DataError, match=r"file_name should be the path of an image in that folder$"):
        rename(content, tmp_path / "coco", names, [], allow_outside=True)


def test_a_file_outside_that_is_no_image_is_unreadable(content, tmp_path):
    (tmp_path / "secret.txt").write_text("secret")
    names = ["../../secret.txt", "5.png", "9.png"]
    data, _ = rename(content, tmp_path / "coco", names, names[1:], allow_outside=True)
    with pytest.raises(UnreadableImageError, match=r"secret\.txt: not a readable image"):
        data.read(0)
