import io
import os
import subprocess
import sys
from types import SimpleNamespace

import datasets
import pytest
from PIL import Image

from tests.data.formats import as_parquet, contents
from tests.data.servers import slow_server
from v2m.data import find_splits, open_dataset, read_image
from v2m.data.classes import huggingface
from v2m.data.errors import UnreadableImageError
from v2m.system import extras
from v2m.system.errors import DataError


@pytest.fixture
def write(tmp_path):
    """Write the training and the validation file: images are red, unless they are given."""
    file = io.BytesIO()
    Image.new("RGB", (9, 7), "red").save(file, "PNG")
    red = dict(bytes=file.getvalue(), path=None)

    def write(**columns):
        for column in ("image", "img", "picture"):
            if column in columns:
                columns[column] = [red if value == "red" else value for value in columns[column]]
        for split in ("train", "val"):
            (tmp_path / "files").mkdir(exist_ok=True)
            datasets.Dataset.from_dict(columns).to_parquet(tmp_path / "files" / f"{split}.parquet")
        return str(tmp_path / "files")

    return write


@pytest.mark.parametrize(("folder", "validation"), [("", "valid"), ("data", "val"), (".", "test")])
def test_files_are_found_where_people_put_them(image_folder, tmp_path, folder, validation):
    as_parquet(image_folder, tmp_path / "files", folder, validation)
    (tmp_path / "files" / folder / "extra.parquet").write_bytes(b"not looked at")
    (tmp_path / "files" / "README.md").write_text("---\nconfigs: [{config_name: odd, data_files: no}]\n---\n")
    for split in ("train", "val"):
        assert contents(tmp_path / "files", split, tmp_path) == contents(image_folder, split, tmp_path)


def test_rows_are_named_by_file(image_folder, tmp_path):
    as_parquet(image_folder, tmp_path / "files")
    data = open_dataset(str(tmp_path / "files"), "train", tmp_path)
    folder = tmp_path / "files" / "data"
    assert data.name(11) == f"{folder / 'train-00000-of-00002.parquet'} row 11"
    assert data.name(12) == f"{folder / 'train-00001-of-00002.parquet'} row 0"
    assert data.name(23) == f"{folder / 'train-00001-of-00002.parquet'} row 11"


def test_a_file_that_changed_is_read_anew(write, tmp_path):
    source = write(image=["red"] * 2, label=[0, 1])
    assert len(open_dataset(source, "val", tmp_path)) == 2
    write(image=["red"] * 3, label=[0, 1, 1])
    assert len(open_dataset(source, "val", tmp_path)) == 3


def test_plain_columns_take_their_classes_from_a_list(write, tmp_path):
    source = write(img=["red"] * 2, fine_label=[0, 1])
    assert open_dataset(source, "train", tmp_path).classes == ["0", "1"]
    (tmp_path / "files" / "classes.txt").write_text("ant\nbee\ncat\n")
    assert open_dataset(source, "train", tmp_path).classes == ["ant", "bee", "cat"]
    source = write(img=["red"] * 2, label=["dog", "cat"])
    (tmp_path / "files" / "classes.txt").unlink()
    assert open_dataset(source, "train", tmp_path).targets == [1, 0]


def test_rows_may_name_files_in_the_folder_instead_of_holding_bytes(image_folder, write, tmp_path):
    image = image_folder / "val" / "red" / "0.png"
    (tmp_path / "files").mkdir()
    path = tmp_path / "files" / "0.png"
    path.write_bytes(image.read_bytes())
    names = [str(path), "0.png"]
    source = write(image=[dict(bytes=None, path=name) for name in names], label=[0, 0])
    data = open_dataset(source, "val", tmp_path)
    for index in range(2):
        assert data.read(index).tobytes() == read_image(image).tobytes()


def test_rows_cannot_name_files_elsewhere_or_that_are_none(image_folder, write, tmp_path):
    (tmp_path / "files").mkdir()
    os.mkfifo(tmp_path / "files" / "pipe.png")
    image = image_folder / "val" / "red" / "0.png"
    names = [str(image), "../images/val/red/0.png", "pipe.png"]
    source = write(image=[dict(bytes=None, path=name) for name in names], label=[0] * 3)
    data = open_dataset(source, "val", tmp_path)
    for index, reason in ((0, "a file elsewhere"), (1, "a file elsewhere"), (2, "no regular file")):
        with pytest.raises(UnreadableImageError, match=rf"row {index}: not a readable image \(.*{reason}"):
            data.read(index)


@pytest.fixture
def outside(image_folder, write, tmp_path):
    """Parquet files with rows that name one image elsewhere, by its whole path and by a climbing one."""
    names = [str(image_folder / "val" / "red" / "0.png"), "../images/val/red/0.png"]
    return write(image=[dict(bytes=None, path=name) for name in names], label=[0, 0]), names


def test_rows_that_name_files_elsewhere_say_what_reads_them(outside, tmp_path):
    source, names = outside
    data = open_dataset(source, "val", tmp_path)
    for index, name in enumerate(names):
        with pytest.raises(UnreadableImageError) as caught:
            data.read(index)
        assert str(caught.value) == (
            f"{source}/val.parquet row {index}: not a readable image (the row has no image, but names a file "
            f"elsewhere: {name}; --allow_outside true reads it)"
        )


def test_rows_may_name_files_elsewhere_where_that_is_allowed(outside, image_folder, tmp_path):
    source, _ = outside
    expected = read_image(image_folder / "val" / "red" / "0.png").tobytes()
    opened = open_dataset(source, "val", tmp_path, allow_outside=True)
    for data in (opened, find_splits(source, tmp_path, allow_outside=True)["val"]()):
        assert [data.read(index).tobytes() for index in range(2)] == [expected] * 2


def test_rows_of_files_elsewhere_are_regular_files_and_images(write, tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "secret.txt").write_text("secret")
    names = ["../pipe.png", "../secret.txt", "../gone.png"]
    source = write(image=[dict(bytes=None, path=name) for name in names], label=[0] * 3)
    data = open_dataset(source, "val", tmp_path, allow_outside=True)
    for index, reason in enumerate(("no regular file", "no known format", "No such file")):
        with pytest.raises(UnreadableImageError, match=rf"row {index}: not a readable image \(.*{reason}"):
            data.read(index)


def test_rows_of_the_hub_never_name_files_elsewhere(tmp_path):
    Image.new("RGB", (9, 7)).save(tmp_path / "x.png")
    rows = [dict(image=dict(bytes=None, path=str(tmp_path / "x.png")), label=0)]

    class Rows(list):
        def __getitem__(self, key):
            return [row[key] for row in self] if isinstance(key, str) else super().__getitem__(key)

    reader = SimpleNamespace(dataset=Rows(rows), image_key="image", label_key="label", class_to_idx={})
    data = huggingface.HfImages(reader, "hfds/x", None, [tmp_path / "cache"], [("hfds/x", 1)])
    with pytest.raises(UnreadableImageError, match=r"x\.png\)$"):
        data.read(0)


def test_rows_without_an_image_are_unreadable(write, tmp_path):
    there = dict(bytes=None, path="gone.png")
    images = ["red", None, dict(bytes=b"broken", path=None), there]
    source = write(image=images, label=[0] * 4)
    data = open_dataset(source, "val", tmp_path)
    assert data[0][0].size == (9, 7)
    for index, reason in ((1, "no image"), (2, "no known format"), (3, "No such file")):
        with pytest.raises(UnreadableImageError, match=rf"row {index}: not a readable image \(.*{reason}"):
            data[index]


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        (dict(picture=["red"], label=[0]), "has the columns picture, label, expected one of image, img"),
        (dict(image=["red"], label=[0.5]), "has labels in column 'label' that are no classes"),
        (dict(image=["red"], label=[-1]), "row 0 has label -1"),
        (dict(image=[5], label=[0]), "cannot be read as images"),
    ],
)
def test_tables_that_do_not_fit_are_named(write, tmp_path, columns, words):
    with pytest.raises(DataError) as caught:
        open_dataset(write(**columns), "train", tmp_path)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_damaged_files_are_named(write, tmp_path):
    source = write(image=["red"], label=[0])
    path = tmp_path / "files" / "val.parquet"
    path.write_bytes(path.read_bytes()[:-50])
    with pytest.raises(DataError, match=r"val\.parquet is not a whole parquet file"):
        open_dataset(source, "val", tmp_path)


def test_damaged_rows_name_their_file_in_one_line(write, tmp_path, capfd):
    source = write(image=["red"] * 3, label=[0, 1, 2])
    path = tmp_path / "files" / "val.parquet"
    content = path.read_bytes()
    path.write_bytes(content[:4] + b"\xff" * 100 + content[104:])
    with pytest.raises(DataError, match=r"val\.parquet is not a whole parquet file \(") as caught:
        open_dataset(source, "val", tmp_path)
    assert "\n" not in str(caught.value)
    assert "Failed" not in "".join(capfd.readouterr())


def test_pipes_are_no_tables(write, tmp_path):
    source = write(image=["red"], label=[0])
    (tmp_path / "files" / "val.parquet").unlink()
    os.mkfifo(tmp_path / "files" / "val.parquet")
    with pytest.raises(DataError, match=r"val\.parquet is no regular file"):
        open_dataset(source, "val", tmp_path)


def test_without_the_library_one_line_says_what_to_install(write, tmp_path, monkeypatch):
    source = write(image=["red"], label=[0])
    monkeypatch.setattr(extras, "find_spec", {}.get)
    for place in (source, "hfds/someone/something"):
        with pytest.raises(DataError, match=r"needs the datasets library: pip install datasets"):
            open_dataset(place, "train", tmp_path)


def test_a_format_is_no_dataset_and_the_current_folder_not_looked_at(image_folder, tmp_path, monkeypatch):
    monkeypatch.chdir(image_folder)
    with pytest.raises(DataError, match="hfds/imagefolder is a format and not a dataset"):
        open_dataset("hfds/imagefolder", "train", tmp_path)
    with pytest.raises(DataError, match="hfds/train is also a local folder; name it without hfds/"):
        find_splits("hfds/train", tmp_path)


def test_a_dataset_that_cannot_be_had_is_one_line(tmp_path):
    code = f"""
from pathlib import Path
from v2m.data import open_dataset
from v2m.system.errors import DataError
try:
    open_dataset("hfds/nobody/nothing", "train", Path({str(tmp_path)!r}))
except DataError as error:
    print(error)
"""
    result = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        capture_output=True,
        text=True,
        env=os.environ | dict(HF_HUB_OFFLINE="1", HF_HOME=str(tmp_path)),
        timeout=120,
    )
    assert result.stdout.startswith("data: hfds/nobody/nothing cannot be had ("), result.stderr
    assert result.stdout.count("\n") == 1


@pytest.mark.parametrize("is_dripping", [False, True])
def test_a_hub_that_never_ends_is_one_line(tmp_path, is_dripping):
    code = f"""
from pathlib import Path
from v2m.data import open_dataset
from v2m.system import network
from v2m.system.errors import DataError
network.LOOK_UP = 2
try:
    open_dataset("hfds/nobody/nothing", "train", Path({str(tmp_path)!r}))
except DataError as error:
    print(error)
"""
    with slow_server(is_dripping) as address:
        result = subprocess.run(
            [sys.executable, "-c", code],
            capture_output=True,
            text=True,
            env=os.environ | dict(HF_ENDPOINT=address, HF_HOME=str(tmp_path), HF_HUB_OFFLINE="0"),
            timeout=300,
        )
    assert result.stdout.startswith("data: hfds/nobody/nothing cannot be had ("), result.stderr
    assert result.stdout.count("\n") == 1


@pytest.mark.network
def test_a_dataset_of_the_hub(tmp_path):
    data = open_dataset("hfds/ylecun/mnist", "val", tmp_path)
    assert (len(data), data.classes) == (10_000, [str(i) for i in range(10)])
    assert data.name(7) == "hfds/ylecun/mnist test row 7"
    assert data[7][0].size == (28, 28)
