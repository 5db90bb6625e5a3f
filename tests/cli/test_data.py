import json
import re
import shutil

import pytest
from PIL import Image

from tests.cli.test_cli import QUICK, fails
from tests.data.classes.test_named import fashion_archives  # noqa: F401 - a fixture
from tests.data.formats import as_parquet, as_tars, as_webdataset
from v2m.cli import main
from v2m.data.classes import named
from v2m.data.coco.open import open_coco


def check(capsys, source, output, *arguments):
    """Run the check: exit code, the rows of its tables by their first words, and the listed problems."""
    code = main(["data", "check", str(source), "--output", str(output), "--workers=0", *arguments])
    out, error = capsys.readouterr()
    assert error == f"checking {source}\n"
    cells = (re.split(r"\s{2,}", line.strip()) for line in out.splitlines())
    rows = {first: others for first, *others in cells}
    lines = (output / "problems.jsonl").read_text().splitlines()
    return code, rows, [json.loads(line) for line in lines], out


def test_a_good_dataset_is_counted_and_drawn(image_folder, tmp_path, capsys):
    code, rows, problems, out = check(capsys, image_folder, tmp_path / "out")
    assert (code, problems) == (0, [])
    assert rows["images"] == ["24", "12"]
    assert rows["classes"] == ["3", "3"]
    assert rows["ratio"] == ["1.0", "1.0"]
    assert rows["widths"] == ["14", "14"]
    assert rows["modes"] == ["colour 100%"] * 2
    assert "no problems found" in out
    assert str(tmp_path / "out" / "problems.jsonl") in out
    with Image.open(tmp_path / "out" / "classes.png") as picture:
        assert picture.size > (600, 200)


@pytest.mark.parametrize(
    ("trouble", "kind", "code"),
    [
        (lambda root: (root / "val/red/0.png").write_bytes(b"broken"), "unreadable", 1),
        (lambda root: shutil.copy(root / "train/red/0.png", root / "val/red/new.png"), "leak", 1),
        (lambda root: shutil.copy(root / "val/red/0.png", root / "val/red/new.png"), "duplicate", 0),
        (lambda root: Image.new("RGB", (7, 9)).save(root / "val/red/0.png"), "tiny", 0),
        (lambda root: shutil.rmtree(root / "val/red"), "empty class", 0),
        (lambda root: (root / "val/purple").mkdir(), "unknown class", 1),
    ],
)
def test_problems_are_counted_and_the_serious_ones_make_it_fail(
    image_folder, tmp_path, capsys, trouble, kind, code
):
    trouble(image_folder)
    got, rows, problems, _ = check(capsys, image_folder, tmp_path / "out")
    assert got == code
    assert problems[0]["kind"] == kind
    assert rows[kind][:2] == ["0", "1"]


def test_sizes_have_a_spread_and_tiny_is_what_one_says(image_folder, tmp_path, capsys):
    Image.new("RGB", (20, 30)).save(image_folder / "val" / "red" / "0.png")
    _, rows, problems, _ = check(capsys, image_folder, tmp_path / "out", "--tiny", "11")
    assert rows["widths"] == ["14", "14 to 20, median 14"]
    assert len(problems) == 24 + 11
    assert rows["tiny"][:3] == ["24", "11", "has a side of very few pixels"]


def test_files_go_to_the_runs_by_default(image_folder, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["data", "check", "images", "--workers=1"]) == 0
    assert (tmp_path / "runs" / "data-check-images" / "classes.png").is_file()


def test_very_many_classes_are_a_curve(tmp_path, capsys):
    for split, count in (("train", 60), ("val", 50)):
        for name in range(count):
            folder = tmp_path / "many" / split / f"class {name}"
            folder.mkdir(parents=True)
            level = name + 100 * (split == "val")
            Image.new("RGB", (8, 8), (level, 0, 0)).save(folder / "0.png")
    code, rows, problems, _ = check(capsys, tmp_path / "many", tmp_path / "out")
    assert (code, rows["classes"]) == (0, ["60", "50"])
    assert [problem["kind"] for problem in problems] == ["empty class"] * 10
    with Image.open(tmp_path / "out" / "classes.png") as picture:
        assert picture.size > (600, 300)


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["check", "/no/such/place"], 1, ["'/no/such/place' is neither a dataset"]),
        (["check", "digits", "--tiny", "-1"], 2, ["tiny", "-1"]),
        (["check", "digits", "--worker", "1"], 2, ["did you mean --workers?"]),
        (["chek"], 2, ["did you mean 'check'?"]),
        ([], 2, ["check"]),
    ],
)
def test_mistakes_get_one_line_and_an_exit_code(capsys, arguments, code, words):
    got, error = fails(capsys, "data", *arguments)
    assert got == code
    for word in words:
        assert word in error


def test_a_folder_without_splits_is_one_line(tmp_path, capsys):
    (tmp_path / "cats").mkdir()
    code, error = fails(capsys, "data", "check", str(tmp_path))
    assert (code, "has no folder train/, nor train*.tar, nor train*.parquet" in error) == (1, True)


def test_objects_and_masks_are_checked_and_drawn(fashion_archives, tmp_path, capsys, monkeypatch):  # noqa: F811
    monkeypatch.setattr(named, "DEBIAN_FASHION_MNIST", fashion_archives[0])
    scenes = tmp_path / "scenes"
    make = ["--train=5", "--val=2", "--sizes", "64x80", "--data_dir", str(tmp_path)]
    assert main(["data", "scenes", str(scenes), *make]) == 0
    capsys.readouterr()
    code, rows, problems, out = check(capsys, scenes, tmp_path / "out")
    objects = str(open_coco(str(scenes), "train").count_objects())
    assert (rows["images"], rows["objects"][0], rows["widths"]) == (["5", "2"], objects, ["80", "80"])
    assert {"crowds", "ignored pixels"} <= rows.keys()
    assert (code, {problem["kind"] for problem in problems}) == (0, {"empty class"})
    for name in ("objects.png", "classes.png", "masks.png", "pixels.png"):
        assert f"picture: {tmp_path / 'out' / name}" in out
        with Image.open(tmp_path / "out" / name) as picture:
            assert min(picture.size) > 200
    path = scenes / "annotations" / "instances_val.json"
    path.write_text(path.read_text().replace('"bbox": [', '"bbox": ["wide", '))
    code, rows, *_ = check(capsys, scenes, tmp_path / "out")
    assert (code, rows["annotation"][0]) == (1, "0")


def test_masks_are_checked_with_the_labels_of_training(tmp_path, capsys):
    for kind, mode, colours in (("images", "RGB", ("red", "blue")), ("masks", "L", (9, 9))):
        for split, colour in zip(("train", "val"), colours, strict=True):
            (tmp_path / kind / split).mkdir(parents=True)
            Image.new(mode, (10, 20), colour).save(tmp_path / kind / split / "a.png")
    (tmp_path / "classes.txt").write_text("grass\n")
    code, _, problems, _ = check(capsys, tmp_path, tmp_path / "out")
    assert (code, {problem["kind"] for problem in problems}) == (1, {"value", "empty class"})
    assert check(capsys, tmp_path, tmp_path / "out", "--input.label_map={9: 0}")[0] == 0
    code, error = fails(capsys, "data", "check", str(tmp_path), "--input.label_map={70000: 0}")
    assert (code, "input.label_map has the value 70000, masks have 0 to 65535" in error) == (1, True)


@pytest.mark.parametrize("pack", [as_tars, as_webdataset, as_parquet])
def test_every_format_trains(image_folder, tmp_path, capsys, pack):
    pack(image_folder, tmp_path / "packed")
    arguments = ["--data", str(tmp_path / "packed"), "--data_dir", str(tmp_path / "cache"), "--epochs=1"]
    assert main(["train", *arguments, "--output", str(tmp_path / "run"), *QUICK, "--workers=1"]) == 0
    assert "12 images" in capsys.readouterr().out


def test_scenes_are_made_counted_and_drawn(fashion_archives, tmp_path, capsys, monkeypatch):  # noqa: F811
    monkeypatch.setattr(named, "DEBIAN_FASHION_MNIST", fashion_archives[0])
    output = tmp_path / "my scenes"
    arguments = ["--train=5", "--val=2", "--sizes", "64x80", "72x56", "--data_dir", str(tmp_path)]
    assert main(["data", "scenes", str(output), *arguments]) == 0
    out, error = capsys.readouterr()
    assert error == ""
    rows = [line.split() for line in out.splitlines()]
    train = open_coco(str(output), "train")
    assert rows[1][:3] == ["train", "5", str(train.count_objects())]
    assert rows[2][:2] == ["val", "2"]
    assert {train.size(i) for i in range(5)} <= {(64, 80), (72, 56)}
    lines = [line.strip() for line in out.splitlines()]
    assert f"picture: {output / 'samples.png'}" in lines
    assert lines[-2:] == [
        f"v2m train --recipe scenes-{task} --data '{output}'" for task in ("detection", "segmentation")
    ]
    with Image.open(output / "samples.png") as picture:
        assert picture.size > (600, 200)
    code, error = fails(capsys, "data", "scenes", str(output), "--data_dir", str(tmp_path))
    assert (code, "holds scenes of other settings" in error) == (1, True)


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["--sizes", "96x96", "96"], 1, ["sizes: 96, expected HEIGHTxWIDTH in pixels, such as 96x128"]),
        (["--sizes", "96x96", "40x96"], 1, ["sizes: 40x96, expected sides of at least 50 pixels"]),
        (["--train", "0"], 2, ["train", "0"]),
        (["--sead", "1"], 2, ["did you mean --seed?"]),
    ],
)
def test_mistakes_in_scenes_get_one_line(tmp_path, capsys, arguments, code, words):
    got, error = fails(capsys, "data", "scenes", str(tmp_path / "out"), *arguments)
    assert got == code
    for word in words:
        assert word in error
    assert not (tmp_path / "out").exists()
