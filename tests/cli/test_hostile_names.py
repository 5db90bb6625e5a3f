"""Names of strangers in all that commands print and write."""

import io
import json
import os
import re
import shlex
import shutil
import subprocess
import warnings
from contextlib import redirect_stderr, redirect_stdout

import numpy as np
import pytest
import yaml
from PIL import Image

from tests.cli.test_cli import QUICK
from tests.hostile import FOLDERS, HARMFUL, NAMES, assert_harmless
from tests.scenes import TASKS, make_scenes, train_arguments
from tests.studies.test_run import tiny_study, train_here
from v2m.cli import main
from v2m.studies.catalogue import STUDIES
from v2m.system.errors import same_name, shown

CLASSES = sorted({same_name(name) for name in FOLDERS.values()})
FOUR = (
    "".join(NAMES[key] for key in ("escape", "one byte escape", "tab", "backspace")),
    "".join(NAMES[key] for key in ("right to left", "invisible", "markup", "codes")),
    NAMES["math"],
    NAMES["underscore"] + 500 * "\u732b",
)
"""Names of the classes of scenes, of which masks have a line each."""
HOSTILE_FOLDER = "run\n\x1b[2J\u202e'$(id)' [red]"


def write_images(parent):
    """A folder of images whose classes are ``CLASSES``, and one that cannot be read."""
    generator = np.random.default_rng(0)
    for split, count in (("train", 2), ("val", 1)):
        for name in CLASSES:
            (parent / split / name).mkdir(parents=True)
            for number in range(count):
                pixels = generator.integers(0, 255, (8, 12, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(parent / split / name / f"{number}.png")
    (parent / "val" / CLASSES[0] / "\x1b]0;no image\x07\n\u202e.png").write_bytes(b"no image")
    return parent


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    """Images and a run on them, in folders of hostile names, and all that training printed."""
    parent = tmp_path_factory.mktemp("hostile")
    images, folder = write_images(parent / "images\x1b[31m\n[red]$x$"), parent / HOSTILE_FOLDER
    printed = io.TextIOWrapper(io.BytesIO(), encoding="utf-8")
    with redirect_stdout(printed), redirect_stderr(printed):
        assert main(["train", "--data", str(images), "--output", str(folder), *QUICK]) == 0
    printed.flush()
    return images, folder, printed.buffer.getvalue()


@pytest.fixture
def command(capsysbinary):
    """A function that runs a command and gives its exit code and what it printed, which is harmless."""

    def run(*arguments):
        capsysbinary.readouterr()
        try:
            code = main([str(argument) for argument in arguments])
        except SystemExit as stop:
            code = stop.code
        out, error = capsysbinary.readouterr()
        assert_harmless(out.replace(b"\t", b"") if arguments[0] == "predict" else out)
        assert_harmless(error)
        return code, out.decode(), error.decode()

    return run


def test_train(places):
    _, run, printed = places
    assert_harmless(printed)
    text = printed.decode()
    assert f"Everything is in {shown(str(run))}:\n" in text
    assert {"learning_curve.png", "confusion_matrix.png", "predictions.png"} <= {
        p.name for p in run.iterdir()
    }
    assert json.loads((run / "config.json").read_text())["label_names"] == CLASSES


def test_commands_to_paste(places):
    _, run, printed = places
    lines = printed.decode().splitlines()
    pasted = next(line for line in lines if " predict " in line)
    shell = shutil.which("bash")
    if not shell:
        pytest.skip("no bash")
    words = f"printf '%s\\0' {pasted}"
    found = subprocess.run([shell, "-c", words], capture_output=True, check=True).stdout.split(b"\0")
    assert os.fsdecode(found[2]) == str(run)
    assert shlex.split(lines[-1])[-1].endswith("pretrained=True)")


def test_eval(places, command):
    images, run, _ = places
    code, out, error = command("eval", run, "--data", images)
    assert (code, error) == (1, "")
    rows = [" ".join(line.split()) for line in out.splitlines()]
    assert all(any(row.startswith(" ".join(shown(name).split())) for row in rows) for name in CLASSES)
    (folder,) = run.glob("eval-*")
    assert not HARMFUL.search(folder.name)
    assert "\n" not in folder.name
    row = json.loads((folder / "unreadable.jsonl").read_text())
    assert row["image"] == str(images / "val" / CLASSES[0] / "\x1b]0;no image\x07\n\u202e.png")


def test_predict_prints_a_line_of_cells(places, command):
    images, run, _ = places
    code, out, error = command("predict", run, images / "val", "--top=100")
    assert code == 1
    *told, last = error.split("\n")[:-1]
    assert last.startswith("v2m: error: ")
    assert [line.split()[0] for line in told] == ["classifying", "with"]
    lines = out.splitlines()
    assert len(lines) == len(CLASSES)
    for line in lines:
        path, *cells = line.split("\t")
        assert path.startswith(shown(str(images)))
        assert {cell.rpartition(" ")[0] for cell in cells} == {*map(shown, CLASSES)}


def test_json_is_exact(places, command, tmp_path):
    images, run, _ = places
    copy = shutil.copytree(run, tmp_path / "run")
    config = json.loads((copy / "config.json").read_text())
    names = [*NAMES.values(), *map(str, range(100))][: len(CLASSES)]
    names[0] = "\ud800"
    config["label_names"] = names
    del config["sha256"]
    (copy / "config.json").write_text(json.dumps(config))
    image = images / "val" / CLASSES[0] / "0.png"
    code, out, _ = command("predict", copy, image, "--json", "--top=100")
    (row,) = map(json.loads, out.splitlines())
    assert (code, row["image"]) == (0, str(image))
    assert sorted(found["class"] for found in row["predictions"]) == sorted(names)
    code, out, _ = command("predict", copy, image, "--top=100")
    assert (code, len(out.splitlines())) == (0, 1)


def test_predict_in_a_terminal(places, tmp_path, capsys, monkeypatch):
    images, run, _ = places
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "300")
    main(["predict", str(run), str(images / "val"), "--top=2"])
    out, error = capsys.readouterr()
    steering = r"\x1b\[[0-9;]*m|\x1b\[\?25[lh]|\x1b\[\d?[AK]|\r"
    assert_harmless(re.sub(steering, "", out + error))
    assert "\x1b[31m" not in out


def test_data_check(places, command, tmp_path):
    images, *_ = places
    code, *_ = command("data", "check", images, "--output", tmp_path / HOSTILE_FOLDER, "--workers=0")
    assert code == 1
    text = (tmp_path / HOSTILE_FOLDER / "problems.jsonl").read_text()
    assert_harmless(text)
    rows = [json.loads(line) for line in text.splitlines()]
    assert any(row["image"] and row["image"].endswith("\x1b]0;no image\x07\n\u202e.png") for row in rows)
    with Image.open(tmp_path / HOSTILE_FOLDER / "classes.png") as picture:
        assert min(picture.size) > 200


def test_data_check_of_names_that_are_no_text(image_folder, command, tmp_path):
    for split in ("train", "val"):
        (image_folder / split / "red").rename(os.fsdecode(os.fsencode(image_folder / split) + b"/r\xe9\x9bd"))
    images = [*(image_folder / "train").glob("r*/*")]
    for image in images:
        image.unlink()
    _, out, _ = command("data", "check", image_folder, "--output", tmp_path / "out", "--workers=0")
    assert r"r\udce9\udc9bd" in out
    assert (tmp_path / "out" / "classes.png").is_file()


def test_embed_and_probe(places, command, tmp_path):
    images, run, _ = places
    code, out, error = command("embed", run, images, "--out", tmp_path / "a\n\x1b[0m.npz")
    assert (code, out.count("\n")) == (0, 1)
    assert "left out" in error
    code, *_ = command("probe", run, "--data", images, "--output", tmp_path / HOSTILE_FOLDER)
    assert code == 0
    (row,) = json.loads((tmp_path / HOSTILE_FOLDER / "probe.json").read_text())
    assert row["facts"]["classes"] == CLASSES
    (features,) = (p for p in (tmp_path / HOSTILE_FOLDER).iterdir() if p.is_dir())
    assert not HARMFUL.search(features.name)


def test_features_of_models_stay_in_the_output(places, command, tmp_path, monkeypatch):
    images, run, _ = places
    (tmp_path / "in" / "here").mkdir(parents=True)
    shutil.copytree(run, tmp_path / "in", dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path / "in" / "here")
    code, *_ = command("probe", "..", "--data", images, "--output", "found/deep")
    assert code == 0
    assert not (tmp_path / "in" / "here" / "found" / "train.npz").exists()


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    """Scenes whose classes have the names ``FOUR``."""
    root = make_scenes(tmp_path_factory.mktemp("data"), 4, 2)
    for path in (root / "annotations").glob("*.json"):
        content = json.loads(path.read_text())
        for category, name in zip(content["categories"], FOUR, strict=True):
            category["name"] = name
        path.write_text(json.dumps(content))
    names = root / "classes.txt"
    names.write_text("\n".join([names.read_text().split("\n")[0], *FOUR]) + "\n", encoding="utf-8")
    return root


@pytest.mark.parametrize("task", TASKS)
def test_tasks_on_scenes(task, scenes, command, tmp_path):
    run = tmp_path / HOSTILE_FOLDER
    code, *_ = command(*train_arguments(task, scenes, run, "--epochs=1"))
    assert code == 0
    code, out, _ = command("eval", run)
    assert code == 0
    assert all(shown(name)[:20] in out for name in FOUR)
    image = next(scenes.rglob("val/*.png"))
    odd = tmp_path / "\x1b[31m\n\u202e.png"
    shutil.copy(image, odd)
    code, out, _ = command("predict", run, odd, "--threshold=0")
    assert code == 0
    (picture,) = (run / "predictions").glob("*31m*[0-9a-f].png")
    assert not HARMFUL.search(picture.name)
    code, out, _ = command("predict", run, odd, "--threshold=0", "--json")
    row = json.loads(out)
    assert row["image"] == str(odd)
    key = "objects" if task == "detection" else "classes"
    assert {found["class"] for found in row[key]} <= {"background", *map(same_name, FOUR)}


def test_data_check_of_objects_and_masks(scenes, command, tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        command("data", "check", scenes, "--output", tmp_path / HOSTILE_FOLDER, "--workers=0")
    names = {path.name for path in (tmp_path / HOSTILE_FOLDER).iterdir()}
    assert {"objects.png", "classes.png", "masks.png", "pixels.png", "problems.jsonl"} <= names
    assert_harmless((tmp_path / HOSTILE_FOLDER / "problems.jsonl").read_text())


def test_study(image_folder, command, tmp_path, monkeypatch):
    study = tiny_study(image_folder.rename(tmp_path / "images\x1b[31m\n"))
    monkeypatch.setitem(STUDIES, "tiny", study)
    output = tmp_path / HOSTILE_FOLDER
    for run in study.runs(output, STUDIES["digits"].base.data_dir, study.seeds):
        train_here(run)
    code, *_ = command("study", "tiny", "--output", output)
    assert code == 0
    assert_harmless((output / "table.md").read_text())


LINE = "".join(name for name in NAMES.values() if "/" not in name and len(name) < 100)


@pytest.mark.parametrize("name", [LINE, NAMES["markup"], NAMES["long"]], ids=["line", "markup", "long"])
def test_mistakes_are_one_harmless_line(name, command, tmp_path):
    for arguments in (
        ("train", "--data", name),
        ("train", "--data=digits", f"--model={name}"),
        ("train", "--data=digits", f"--{name}=1"),
        ("train", "--data=digits", f"--model_args={name}"),
        ("train", "--config", name),
        ("train", "--resume", name),
        ("train", "--recipe", name),
        ("eval", name),
        ("predict", name, name),
        ("embed", name, "digits", "--out", tmp_path / "a.npz"),
        ("probe", name, "--data=digits"),
        ("study", name),
        ("study", "digits", "--only", name),
        ("data", "check", name),
        ("data", "scenes", tmp_path / "scenes", "--sizes", name),
        ("list", name),
        ("bench", "models", "--models", name),
        ("bench", "operators", "--competitors", name),
        ("refine", name),
        ("convert", name, tmp_path / "out"),
        ("recipes", name),
        ("kernels", name),
        (name,),
    ):
        code, _, error = command(*arguments)
        *told, last = error.split("\n")[:-1]
        assert code in (1, 2), arguments
        assert last.startswith("v2m: error: "), arguments
        # Some commands say what they are about to do.
        assert [line.split()[0] for line in told] in ([], ["embedding"], ["probing"], ["checking"]), arguments


def test_warnings_are_one_harmless_line(command, monkeypatch):
    monkeypatch.setattr(warnings, "formatwarning", None)
    command("list")
    line = warnings.formatwarning(UserWarning("".join(NAMES.values())), UserWarning, "file", 1)
    assert_harmless(line)
    assert (line.startswith("warning: "), line.count("\n")) == (True, 1)


def test_settings_that_are_printed(command, tmp_path):
    code, out, _ = command("train", f"--data={LINE}", "--print_config")
    assert code == 0
    assert yaml.safe_load(out)["data"] == LINE


def test_labels_of_a_converted_model(command, tmp_path):
    labels = tmp_path / "labels\x1b\n.txt"
    labels.write_text("a\n")
    code, _, error = command("convert", tmp_path / "no\x1b\nfile", tmp_path / "out", "--labels", labels)
    assert (code, error.count("\n")) == (1, 1)
