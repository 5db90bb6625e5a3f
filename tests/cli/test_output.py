"""What commands are given to read, and the names of what they write."""

import io
import sys
from pathlib import Path

import pytest
from PIL import Image

from tests.cli.test_cli import run  # noqa: F401
from v2m.cli import main
from v2m.cli.output import PredictionFiles, distinct_names, find_inputs


@pytest.mark.parametrize(
    ("paths", "names"),
    [
        (["a/0.png", "a/1.png"], ["0.png", "1.png"]),
        (["a/0.png", "b/0.png", "b/1.png"], ["a/0.png", "b/0.png", "1.png"]),
        (["x/a/0.png", "y/a/0.png", "y/b/0.png"], ["x/a/0.png", "y/a/0.png", "b/0.png"]),
        (["0.png", "a/0.png", "/b/a/0.png"], ["0.png", "a/0.png", "b/a/0.png"]),
        (["/0.png", "0.png", "../0.png"], ["/0.png", "0.png", "../0.png"]),
    ],
)
def test_names_have_the_folders_that_tell_them_apart(paths, names):
    found = distinct_names([Path(path) for path in paths])
    assert [found[Path(path)] for path in paths] == names


def test_files_of_predictions_are_named_by_their_images(tmp_path):
    images = [tmp_path / name for name in ("a/0.png", "b/0.png", "b/1.png", "b/1.jpg")]
    files = PredictionFiles(str(tmp_path / "found"), "model", images)
    written = [files.take(image, ".png", "_labels.png") for image in images]
    assert [[file.name for file in of_one] for of_one in written] == [
        ["a-0.png", "a-0_labels.png"],
        ["b-0.png", "b-0_labels.png"],
        ["1.png", "1_labels.png"],
        ["1-2.png", "1-2_labels.png"],
    ]


def test_what_cannot_be_read_is_named(tmp_path):
    Image.new("L", (2, 2)).save(tmp_path / "there.png")
    (tmp_path / "dead.png").symlink_to("gone.png")
    paths, failures = find_inputs([str(tmp_path), "https://example.com/cat.jpg", str(tmp_path / "no.png")])
    assert paths == [tmp_path / "there.png", "https://example.com/cat.jpg"]
    assert failures == [
        f"{tmp_path}/no.png: no such file or folder",
        f"{tmp_path}/dead.png: a link to gone.png, which is not there",
    ]


@pytest.mark.parametrize(
    ("encoding", "name"), [("latin-1", "caf\xe9-\\u732b.png"), ("ascii", "caf\\xe9-\\u732b.png")]
)
def test_letters_that_the_output_lacks_are_no_error(run, tmp_path, monkeypatch, encoding, name):  # noqa: F811
    Image.new("RGB", (12, 8)).save(tmp_path / "caf\xe9-\u732b.png")
    printed = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(printed, encoding=encoding))
    assert main(["predict", str(run), str(tmp_path / "caf\xe9-\u732b.png")]) == 0
    sys.stdout.flush()
    assert printed.getvalue().decode(encoding).startswith(f"{tmp_path}/{name}\t")
