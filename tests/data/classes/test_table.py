import json
import os

import pytest
from PIL import Image

from v2m.data import find_splits, open_dataset
from v2m.data.classes.division import Division
from v2m.system.errors import DataError

IMAGES = {"images/a.png": "ant", "images/b.png": "bee", "images/c.png": "ant", "d.png": "bee"}


@pytest.fixture
def folder(tmp_path):
    """Four images of two classes, without any labels."""
    for number, name in enumerate(IMAGES):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.new("RGB", (3, 2), number).save(tmp_path / name)
    return tmp_path


def opened(table, **options):
    """The image of every row by its name from the folder, with its class."""
    (split,) = find_splits(str(table), table.parent, **options).values()
    data = split()
    return {
        os.path.relpath(data.name(i), table.parent): data.classes[data.targets[i]] for i in range(len(data))
    }


def write(table, text):
    table.write_text(text, encoding="utf-8")
    return table


@pytest.mark.parametrize("head", ["image,label", "file_name,class", "Filename, Label", "path,category"])
@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_csv_files_as_people_write_them(folder, head, delimiter):
    lines = [head, *(f"{name},{label}" for name, label in IMAGES.items())]
    text = "\r\n".join(lines).replace(",", delimiter)
    assert opened(write(folder / "my labels.csv", f"\ufeff{text}\n\n")) == IMAGES


def test_json_lines_with_other_fields(folder):
    rows = [dict(extra=[1, {}], file_name=name, label=label) for name, label in IMAGES.items()]
    assert opened(write(folder / "l.jsonl", "\n".join(map(json.dumps, rows)))) == IMAGES


def test_quoted_names_absolute_paths_and_those_of_windows(folder):
    Image.new("RGB", (2, 2)).save(folder / 'a, "b"\n.png')
    rows = [
        '"a, ""b""\n.png",ant',
        f"{folder}/d.png,bee",
        "images\\a.png,ant",
        "./images/../images/b.png,bee",
    ]
    text = "\n".join(["image,label", *rows])
    assert opened(write(folder / "l.csv", text)) == {
        'a, "b"\n.png': "ant", "d.png": "bee", "images/a.png": "ant", "images/b.png": "bee"
    }  # fmt: skip


def test_labels_that_are_numbers_are_names_in_order_or_count_in_a_list(folder):
    rows = [dict(image=name, label=label) for name, label in zip(IMAGES, (0, 10, 9, 0), strict=True)]
    table = write(folder / "l.jsonl", "\n".join(map(json.dumps, rows)))
    data = find_splits(str(table), folder)["val"]()
    assert (data.classes, data.targets) == (["0", "9", "10"], [0, 2, 1, 0])
    write(folder / "classes.txt", "\n".join("abcdefghijk"))
    for listed in (
        table,
        write(folder / "l.csv", "image,label\n" + "".join(f"{r['image']},{r['label']}\n" for r in rows)),
    ):
        data = find_splits(str(listed), folder)["val"]()
        assert (data.classes[9], data.targets) == ("j", [0, 10, 9, 0])


def test_labels_of_too_many_digits_are_names(folder):
    labels = ["9" * 5000, "8" * 19, "1", "2"]
    rows = "".join(f"{name},{label}\n" for name, label in zip(IMAGES, labels, strict=True))
    data = find_splits(str(write(folder / "l.csv", f"image,label\n{rows}")), folder)["val"]()
    assert data.classes == sorted(labels)


def test_a_column_of_splits_counts_and_else_a_split_is_made(folder):
    names = dict(zip(IMAGES, ("train", "TRAIN", "Validation", "validation"), strict=True))
    rows = "".join(f"{name},{label},{names[name]}\n" for name, label in IMAGES.items())
    table = write(folder / "l.csv", f"file_name,label,split\n{rows}")
    found = {name: len(opener()) for name, opener in find_splits(str(table), folder).items()}
    assert found == dict(train=2, validation=2)
    table = write(folder / "l.csv", f"file_name,label,split\n{rows}".replace("alidation", "xx"))
    with pytest.raises(DataError, match=r"l\.csv, line 4 has split 'Vxx', expected one of train, val, "):
        find_splits(str(table), folder)
    table = write(folder / "l.csv", "image,label\n" + "".join(f"{n},{c}\n" for n, c in IMAGES.items()))
    train, val = (open_dataset(str(table), split, folder, division=Division()) for split in ("train", "val"))
    assert (sorted(train.targets), sorted(val.targets)) == ([0, 1], [0, 1])
    assert not set(train.kept.train) & set(train.kept.val)
    assert set(train.kept.train) | set(train.kept.val) == set(IMAGES)


def test_metadata_beside_images_is_read_where_it_has_labels(folder, image_folder):
    (image_folder / "metadata.csv").write_text("file_name,text\ntrain/red/0.png,a red image\n")
    assert len(open_dataset(str(image_folder), "train", folder)) == 24
    (image_folder / "train" / "metadata.jsonl").write_text('{"file_name": "red/0.png", "label": "ruby"}\n')
    data = open_dataset(str(image_folder), "train", folder)
    assert (data.classes, data.name(0)) == (["ruby"], str(image_folder / "train" / "red" / "0.png"))


def test_metadata_of_a_folder_without_splits_is_divided(folder):
    rows = "".join(f"{name},{label}\n" for name, label in IMAGES.items())
    write(folder / "metadata.csv", f"file_name,label\n{rows}")
    data = open_dataset(str(folder), "val", folder, division=Division())
    assert (data.classes, len(data)) == (["ant", "bee"], 2)


def test_nothing_outside_of_the_folder_is_read_unless_it_is_allowed(folder, tmp_path_factory):
    outside = tmp_path_factory.mktemp("outside") / "secret.png"
    Image.new("RGB", (2, 2)).save(outside)
    climbing = os.path.relpath(outside, folder)
    for name in (str(outside), climbing, f"images/../{climbing}", climbing.replace("/", "\\")):
        table = write(folder / "l.csv", f"image,label\nd.png,bee\n{name},ant\n")
        with pytest.raises(DataError, match=r"l\.csv, line 3 names .* outside of .*; --allow_outside true"):
            find_splits(str(table), folder)
        found = find_splits(str(table), folder, allow_outside=True)["val"]()
        assert os.path.samefile(found.name(1), outside)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "l.csv has no rows"),
        ("image,label\n", "l.csv has no rows"),
        ("name,kind\na,b\n", "line 2 has the columns name, kind; expected one of file_name, .* and one of "),
        ("image,label\nd.png\n", r"line 2 has 1 values, expected 2 \(image, label\)"),
        ("image,label\nd.png,\n", "line 2 has label '', expected a class"),
        ("image,label\n,bee\n", "line 2 has image '', expected the path of an image"),
        ("image,label\nd.png,bee\nd.png,ant\n", "line 3 has .*d.png again, which is of 'bee' in line 2"),
        ("image,label\nd.png,bee\nx.png,ant\n", r"line 3 names .*x.png, which is not there \(1 of 2 images"),
        ("image,label\nimages,bee\n", "line 2 names .*images, which is not there"),
        ("image,label\nhttps://host/a.png,bee\n", "line 2 names the address 'https://host/a.png'"),
        ("image,label\na\0.png,bee\n", "line 2 has image|line contains NUL"),
        (f"image,label\n{'x' * 70_000},bee\n", "line 2 has more than 65,536 bytes"),
        ('image,label\n"' + "x\n" * 200_000, "is no CSV"),
    ],
)  # fmt: skip
def test_rows_that_cannot_be_used_are_named(folder, text, words):
    table = write(folder / "l.csv", text)
    with pytest.raises(DataError, match=words) as caught:
        opened(table)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("{", r"l\.jsonl, line 2 is no JSON"),
        ("[1]", r"line 2 is '\[1\]', expected an object"),
        ("[" * 60_000, "line 2 is no JSON"),
        ('{"image": 3, "label": "a"}', "line 2 has image '3', expected the path"),
        ('{"image": "d.png", "label": ["a", "b"]}', "line 2 has label .* expected a class"),
        ('{"image": "d.png", "label": true}', "line 2 has label 'True', expected a class"),
        ('{"image": "d.png", "label": null}', "line 2 has label 'None', expected a class"),
        ('{"image": "d.png"}', "line 2 has the columns image; expected one of"),
    ],
)
def test_lines_of_json_that_cannot_be_used_are_named(folder, line, words):
    table = write(folder / "l.jsonl", '{"image": "images/a.png", "label": "ant"}\n' + line + "\n")
    with pytest.raises(DataError, match=words):
        opened(table)


def test_a_table_in_another_encoding_is_named(folder):
    (folder / "l.csv").write_bytes("image,label\nd.png,blüte\n".encode("latin-1"))
    with pytest.raises(DataError, match=r"l\.csv, line 2 is not UTF-8"):
        opened(folder / "l.csv")
