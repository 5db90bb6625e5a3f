"""Detection and segmentation at the command line, from training to pictures; and what is said of mistakes."""

import io
import json
import shutil
from contextlib import redirect_stdout

import numpy as np
import pytest
import yaml
from PIL import Image

from tests.cli.test_cli import fails, picture_size
from tests.scenes import CLASSES, PICTURES, TASKS, make_scenes, train_arguments
from v2m.cli import main
from v2m.cli.views import detection, segmentation
from v2m.engine.run_folder import RunFolder

SCORES = dict(detection="validation box AP ", segmentation="validation mIoU ")
NUMBERS = dict(
    detection={f"{kind}_{name}" for kind in ("box", "mask") for name in ("ap", "ap50", "ap75")},
    segmentation={"loss", "miou", "pixel_accuracy", "class_accuracy"},
)
FILES = {
    "best",
    "checkpoints",
    "config.json",
    "learning_curve.png",
    "metrics.jsonl",
    "model.safetensors",
    "train.yaml",
}
each_task = pytest.mark.parametrize("task", TASKS)


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    """The scenes of ``make_scenes``, not to be changed."""
    return make_scenes(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def trained(scenes, tmp_path_factory):
    """The folder of a run and the lines that it printed, by task."""
    found = {}
    for task in TASKS:
        folder = tmp_path_factory.mktemp("runs") / task
        with redirect_stdout(io.StringIO()) as printed:
            assert main(train_arguments(task, scenes, folder)) == 0
        found[task] = folder, printed.getvalue().splitlines()
    return found


@pytest.fixture
def run(trained, task, tmp_path):
    """A copy of a run, to write into."""
    return shutil.copytree(trained[task][0], tmp_path / task)


@pytest.fixture
def no_pictures(monkeypatch):
    """Draw nothing, which would take most of the time."""
    for view in (detection, segmentation):
        monkeypatch.setattr(view, "draw", lambda *parts: None)
    monkeypatch.setattr("v2m.recipes.run.plot_learning_curve", lambda *parts: None)


def same_detections(one, other):
    """Compare results in COCO's format, up to rounding."""
    assert len(one) == len(other)
    for entry, expected in zip(one, other, strict=True):
        assert entry["bbox"] == pytest.approx(expected["bbox"], abs=1e-3)
        assert entry["score"] == pytest.approx(expected["score"], abs=1e-5)
        assert [entry[key] for key in ("image_id", "category_id")] == [
            expected[key] for key in ("image_id", "category_id")
        ]


def scores_line(text):
    return next(line for line in text.splitlines() if line.startswith("validation "))


@each_task
def test_train_reports_and_leaves_its_files(trained, task):
    folder, lines = trained[task]
    lines = [line for line in lines if not line.startswith("warning: ")]  # of classes that so few scenes lack
    epochs = [line for line in lines if line.startswith("epoch ")]
    assert [line.split()[:2] for line in epochs] == [["epoch", "1/2"], ["epoch", "2/2"]]
    assert "  |  val " in epochs[0]
    line = scores_line("\n".join(lines))
    assert line.startswith(SCORES[task])
    assert line.endswith(", 5 images)")
    assert {path.name for path in folder.iterdir()} == FILES | PICTURES[task]
    listed = lines[lines.index(f"Everything is in {folder}:") + 1 : lines.index("Try next:") - 1]
    assert {line.split()[0].rstrip("/") for line in listed} == FILES - {"config.json"} | PICTURES[task]
    assert {path.name for path in (folder / "best").iterdir()} == {"config.json", "model.safetensors"}
    for path in folder.glob("*.png"):
        assert picture_size(path) > (300, 200), path.name
    settings = yaml.safe_load((folder / "train.yaml").read_text())
    assert settings["task"] == json.loads((folder / "config.json").read_text())["task"] == task


@each_task
def test_metrics_are_those_of_the_task(trained, task):
    rows = RunFolder(trained[task][0]).read_metrics()
    assert [row["epoch"] for row in rows] == [1, 2]
    for row in rows:
        assert {name for name in row if name.startswith("val_")} == {
            *(f"val_{name}" for name in NUMBERS[task]),
            "val_images",
        }
        assert row["train_loss"] > 0
        assert all(0 <= row[f"val_{name}"] <= 1 for name in NUMBERS[task] - {"loss"})


@each_task
def test_eval_gives_what_the_last_epoch_gave(trained, run, task, capsys):
    last = RunFolder(run).read_metrics()[-1]
    files = {name: (run / name).read_bytes() for name in PICTURES[task]}
    for name in files:
        (run / name).unlink()
    assert main(["eval", str(run)]) == 0
    out = capsys.readouterr().out
    assert scores_line(out) == scores_line("\n".join(trained[task][1]))
    main_score = last["val_miou" if task == "segmentation" else "val_mask_ap"]
    assert f"{main_score:.{2 if task == 'segmentation' else 1}%}" in scores_line(out)
    assert {line.split()[0] for line in out.splitlines() if line.strip()} >= {"class", *CLASSES}
    if task == "detection":
        same_detections(json.loads(files["results.json"]), json.loads((run / "results.json").read_text()))
    assert {path.name for path in run.iterdir()} == FILES | PICTURES[task]


@each_task
def test_eval_takes_other_data_and_other_classes_are_refused(run, scenes, task, tmp_path, capsys):
    before = (run / "predictions.png").read_bytes()
    other = shutil.copytree(scenes, tmp_path / "other")
    (other / "images/val/000002.png").write_bytes(b"broken")
    assert main(["eval", str(run), "--data", str(other), "--workers=1", "--batch_size=2"]) == 1
    out = capsys.readouterr().out
    assert ", 4 images)" in scores_line(out)
    assert "1 of 5 images cannot be read and do not count, the first is" in out
    assert {path.name for path in (run / "eval-other").iterdir()} == PICTURES[task] | {"unreadable.jsonl"}
    (row,) = RunFolder(run / "eval-other").read_unreadable()
    assert (row["split"], row["image"]) == ("val", str(other / "images/val/000002.png"))
    assert (run / "predictions.png").read_bytes() == before

    (other / "classes.txt").write_text("\n".join(["background", *CLASSES[:-1], "Scarf"]))
    file = other / "annotations/instances_val.json"
    file.write_text(file.read_text().replace(CLASSES[-1], "Scarf"))
    code, error = fails(capsys, "eval", str(run), "--data", str(other))
    assert (code, "Scarf" in error) == (1, True)


@each_task
def test_predict_writes_what_it_says(run, scenes, task, tmp_path, capsys):
    broken, missing, output = tmp_path / "broken.png", tmp_path / "missing.png", tmp_path / "found"
    broken.write_bytes(b"broken")
    gray = tmp_path / "gray.png"
    Image.new("L", (50, 30), 90).save(gray)
    images = [*sorted((scenes / "images/val").iterdir()), gray]
    arguments = ["predict", str(run), *map(str, [*images, broken, missing]), "--output", str(output)]
    assert main([*arguments, "--json", "--threshold=0"]) == 1
    out, err = capsys.readouterr()
    assert "broken.png: not a readable image" in err
    assert "missing.png: no such file" in err
    rows = [json.loads(line) for line in out.splitlines()]
    assert [row["image"] for row in rows] == list(map(str, images))
    for row, image in zip(rows, images, strict=True):
        assert row["picture"] == str(output / image.name)
        assert min(picture_size(output / image.name)) > 20
    if task == "segmentation":
        for row, image in zip(rows, images, strict=True):
            labels = np.asarray(Image.open(row["labels"]))
            assert labels.shape == np.asarray(Image.open(image)).shape[:2]
            shares = np.bincount(labels.ravel(), minlength=5) / labels.size
            found = {item["class"]: item["share"] for item in row["classes"]}
            assert found == {
                name: pytest.approx(share, abs=1e-6)
                for name, share in zip(["background", *CLASSES], shares, strict=True)
                if share
            }
    else:
        entries = json.loads((output / "results.json").read_text())
        assert len(entries) == sum(len(row["objects"]) for row in rows) > 0
        assert {entry["category_id"] for entry in entries} <= {1, 2, 3, 4}
        for item in rows[0]["objects"]:
            assert item["class"] in CLASSES
            assert 0 <= item["box"][0] <= item["box"][2] <= 96
    shutil.rmtree(output)
    assert main([*arguments[:3], "--output", str(output)]) == 0
    line, last = capsys.readouterr().out.splitlines()
    assert line.startswith(str(images[0]) + dict(detection="  ", segmentation="\t")[task])
    assert last.endswith(str(output))


@each_task
def test_images_of_one_name_in_two_folders_are_told_apart(run, scenes, task, tmp_path, capsys):
    names = [f"{folder}/{name}" for folder in ("left", "right") for name in ("0.png", "0.bmp")]
    image = Image.open(min((scenes / "images/val").iterdir()))
    for name in names:
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        image.save(tmp_path / "in" / name)
    arguments = [
        "predict",
        str(run),
        str(tmp_path / "in"),
        "--output",
        str(tmp_path / "out"),
        "--threshold=0",
    ]
    assert main(arguments) == 0
    lines = capsys.readouterr().out.splitlines()
    pictures = ["left-0.png", "left-0-2.png", "right-0.png", "right-0-2.png"]
    for line, name, picture in zip(lines, sorted(names), pictures, strict=False):
        assert line.startswith(str(tmp_path / "in" / name))
        assert line.endswith(f"  ({picture})")
        assert (tmp_path / "out" / picture).is_file()
    if task == "detection":
        entries = json.loads((tmp_path / "out" / "results.json").read_text())
        assert {entry["file_name"] for entry in entries} == set(names)


@pytest.mark.parametrize("task", ["segmentation"])
@pytest.mark.usefixtures("no_pictures")
def test_windows_scales_and_flips_of_segmentation(run, task, tmp_path, capsys):
    found = {}
    for options in (
        "",
        "--window=0",
        "--window=128",
        "--window=32",
        "--window=32 --stride=32",
        "--scales 0.5 1 --flip=true",
        "--scales 1",
    ):
        assert main(["eval", str(run), "--output", str(tmp_path), *options.split()]) == 0
        found[options] = scores_line(capsys.readouterr().out)
    whole = found.pop("")
    same = {options for options, line in found.items() if line == whole}
    assert same == {"--window=0", "--window=128", "--scales 1"}
    assert len(set(found.values()) - {whole}) == 3

    config = json.loads((run / "config.json").read_text())
    config["inference"] |= dict(window=32, stride=32)
    del config["sha256"]
    (run / "config.json").write_text(json.dumps(config))
    for options, like in (
        ([], "--window=32 --stride=32"),
        (["--window=32"], "--window=32"),  # whose stride is the usual one again
        (["--window=0"], "--window=0"),
    ):
        assert main(["eval", str(run), "--output", str(tmp_path), *options]) == 0
        assert scores_line(capsys.readouterr().out) == found[like]
    for options, words in (
        (["--window=16", "--stride=20"], "inference.stride is 20, expected at most the window, 16"),
        (["--window=0", "--stride=16"], "inference.stride is 16, expected none without a window"),
    ):
        assert words in fails(capsys, "eval", str(run), *options)[1]


@each_task
@pytest.mark.usefixtures("no_pictures")
def test_the_saved_configuration_can_be_run_again(trained, task, tmp_path, capsys):
    folder, again = trained[task][0], tmp_path / "again"
    assert main(["train", "--config", str(folder / "train.yaml"), "--output", str(again)]) == 0
    assert (again / "model.safetensors").read_bytes() == (folder / "model.safetensors").read_bytes()


@each_task
@pytest.mark.usefixtures("no_pictures")
def test_a_run_goes_on_from_where_another_task_ended(trained, scenes, task, tmp_path, capsys):
    """With --pretrained; once a run has begun, the folder that it started from is no longer needed."""
    before = shutil.copytree(
        trained[next(name for name in TASKS if name != task)][0] / "best", tmp_path / "before"
    )
    arguments = train_arguments(task, scenes, tmp_path / "run", f"--pretrained={before}", "--epochs=1")
    assert main([argument for argument in arguments if "model_args" not in argument]) == 0
    shutil.rmtree(before)
    assert main(["train", "--resume", str(tmp_path / "run"), "--epochs=2"]) == 0
    assert "going on in epoch 2" in capsys.readouterr().out
    assert len(RunFolder(tmp_path / "run").read_metrics()) == 2


@each_task
@pytest.mark.usefixtures("no_pictures")
def test_a_run_is_resumed_as_what_it_is(run, task, capsys):
    for other in {"classification", *TASKS} - {task}:
        code, error = fails(capsys, "train", "--resume", str(run), "--task", other)
        assert code == 1
        assert error.endswith(f"task: {other} with --resume {run}, which is a run for {task}\n")
    assert main(["train", "--resume", str(run), "--task", task]) == 0
    assert "nothing left to train: 2 epochs are done" in capsys.readouterr().out


@pytest.mark.usefixtures("no_pictures")
def test_images_elsewhere_are_read_by_an_option_alone(scenes, tmp_path, capsys):
    data = shutil.copytree(scenes, tmp_path / "scenes")
    (data / "images").rename(tmp_path / "elsewhere")
    firsts = {}
    for split in ("train", "val"):
        (data / "images" / split).mkdir(parents=True)
        file = data / "annotations" / f"instances_{split}.json"
        content = json.loads(file.read_text())
        for image in content["images"]:
            image["file_name"] = f"../../../elsewhere/{split}/{image['file_name']}"
        firsts[split] = content["images"][0]["file_name"]
        file.write_text(json.dumps(content))
    shutil.rmtree(data / "masks")
    run, out = tmp_path / "run", tmp_path / "check"
    train = train_arguments("detection", data, run, "--epochs=1")
    check = ["data", "check", str(data), f"--output={out}", "--workers=0"]
    option = "--allow_outside=true"

    for command, split in ((train, "train"), (check, "train")):
        code, error = fails(capsys, *command)
        told = f"lead out of it, the first is {firsts[split]}: --allow_outside true reads them"
        assert (code, told in error) == (1, True)
    assert main([*train, option]) == 0
    assert yaml.safe_load((run / "train.yaml").read_text())["allow_outside"] is True
    capsys.readouterr()
    code, error = fails(capsys, "eval", str(run))
    assert (code, f"the first is {firsts['val']}: --allow_outside true reads them" in error) == (1, True)
    assert main(["eval", str(run), option]) == 0
    assert scores_line(capsys.readouterr().out)

    assert main([*check, option]) in (0, 1)
    lines = (out / "problems.jsonl").read_text().splitlines()
    assert "missing image" not in {json.loads(line)["kind"] for line in lines}
    Image.new("RGB", (64, 64)).save(data / "images" / "train" / "other.png")
    content = json.loads((data / "annotations" / "instances_train.json").read_text())
    content["images"].append(dict(id=10**6, file_name="other.png", height=64, width=64))
    (data / "annotations" / "instances_train.json").write_text(json.dumps(content))
    shutil.rmtree(data / "images" / "val")
    (data / "annotations" / "instances_val.json").unlink()
    capsys.readouterr()
    assert main(check) == 1
    told = f"the first is {firsts['train']}: --allow_outside true reads them"
    assert told in " ".join(capsys.readouterr().out.split())


def boxes_only(scenes, folder):
    shutil.copytree(scenes, folder)
    for file in (folder / "annotations").iterdir():
        content = json.loads(file.read_text())
        for annotation in content["annotations"]:
            del annotation["segmentation"]
        file.write_text(json.dumps(content))
    return folder


@pytest.mark.usefixtures("no_pictures")
def test_masks_must_be_there_for_mask_rcnn_and_for_segmentation(scenes, tmp_path, capsys):
    data = boxes_only(scenes, tmp_path / "boxes")
    arguments = train_arguments("detection", data, tmp_path / "run")
    code, error = fails(capsys, *arguments)
    assert (code, "no segmentation of its objects" in error) == (1, True)
    assert "give --head.detector faster_rcnn" in error
    assert not (tmp_path / "run").exists()
    assert main([*arguments, "--head.detector=faster_rcnn", "--epochs=1"]) == 0
    (row,) = RunFolder(tmp_path / "run").read_metrics()
    assert not any("mask" in name for name in row)
    capsys.readouterr()

    shutil.rmtree(data / "masks")
    code, error = fails(capsys, *train_arguments("segmentation", data, tmp_path / "other"))
    assert (code, "images/train has no masks, expected them in one of masks/train" in error) == (1, True)


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (
            "train --task=detetcion --data={data}",
            1,
            "--task: 'detetcion' is no task, did you mean 'detection'?",
        ),
        ("train --task=detection", 2, "--data is required"),
        (
            "train --task=detection --data=digits",
            1,
            "--data: digits is for classification, not for detection",
        ),
        (
            "train --task=segmentation --data=digits",
            1,
            "--data: digits is for classification, not for segmentation",
        ),
        ("train --task=detection --data=/no/where", 1, "--data: /no/where is not a folder"),
        (
            "train --task=segmentation --data=/no/where",
            1,
            "--data: '/no/where' is neither a dataset (camvid) nor a folder, expected one with",
        ),
        ("train --task=classification --data={data}", 1, "images/train has masks in"),
        (
            "train --task=segmentation --data={data} --batch_size=1",
            1,
            "batch_size is 1 in 1 parts, expected two",
        ),
        (
            "train --task=segmentation --data={data} --batch_size=4 --accumulate=4",
            1,
            "batch_size is 4 in 4 parts",
        ),
        ("train --task=detection --data={data} --fsdp=true", 1, "fsdp: there is one process only"),
        (
            "train --task=detection --data={data} --head.detecter=retinanet",
            2,
            "did you mean --head.detector?",
        ),
        ("train --task=detection --data={data} --head.detector=yolo", 2, "head.detector"),
        ("train --task=segmentation --data={data} --augment.jitter=[1,2]", 2, "augment.jitter"),
        ("train --task=detection --recipe=ade20k-upernet --data={data}", 1, "which is for segmentation"),
        ("train --task=classification --recipe=coco-mask-rcnn-1x --data={data}", 1, "which is for detection"),
        (
            "train --task=segmentation --data={data} --model=vit_tiny_patch16_224",
            1,
            "has feature maps of strides 16",
        ),
        ("train --task=detection --data={data} --model=v2m_lite_nan", 1, "nearest: v2m_lite_nano"),
        ("eval {detection} --window=32", 1, "window: models for segmentation alone have this option"),
        ("eval {detection} --flip=false", 1, "flip: models for segmentation alone have this option"),
        ("eval {segmentation} --scales 0", 2, "scales"),
        (
            "eval {segmentation} --data=digits",
            1,
            "--data: digits is for classification, not for segmentation",
        ),
        ("eval {detection} --data=digits", 1, "--data: digits is for classification, not for detection"),
        ("predict {detection} x.png --threshold=2", 2, "threshold"),
        ("embed {detection} digits --out {data}/x.npz", 1, "a model for detection, expected a classifier"),
        ("probe {segmentation} --data digits", 1, "a model for segmentation, expected a classifier"),
        ("refine {segmentation}", 1, "a model for segmentation, expected a classifier"),
    ],
)
def test_mistakes_get_one_line_and_an_exit_code(
    trained, scenes, tmp_path, capsys, monkeypatch, arguments, code, words
):
    monkeypatch.chdir(tmp_path)
    places = dict(data=scenes, **{task: folder for task, (folder, _) in trained.items()})
    got, error = fails(capsys, *(part.format(**places) for part in arguments.split()))
    assert got == code
    assert words in error
