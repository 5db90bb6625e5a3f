import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import timm
import torch
import yaml
from PIL import Image

import v2m
from tests.helpers import assert_close
from v2m.cli import main
from v2m.data import read_image
from v2m.models.convert import read_released_checkpoint

QUICK = [
    "--epochs=2",
    "--batch_size=8",
    "--device=cpu",
    "--model_args={embed_dim: 16, depth: 1, d_state: 2, patch_size: 4}",
    "--input.img_size=[8, 12]",
]

DIGITS = ["--model_args={embed_dim: 32, depth: 1}", "--input.img_size=8", "--optimizer.lr=0.01"]


@pytest.fixture
def run(image_folder, tmp_path, capsys):
    """A finished run on the three colours."""
    folder = tmp_path / "run"
    assert main(["train", "--data", str(image_folder), "--output", str(folder), *QUICK]) == 0
    capsys.readouterr()
    return folder


def picture_size(path):
    with Image.open(path) as image:
        return image.size


def fails(capsys, *arguments):
    """Run a command that must fail; its exit code, and the only line of an error, which is the last."""
    try:
        code = main(arguments)
    except SystemExit as stop:
        code = stop.code
    lines = capsys.readouterr().err.splitlines(keepends=True)
    *told, error = lines
    assert not any(line.startswith("v2m: ") for line in told)
    assert error.startswith("v2m: error: ")
    return code, error


def test_train_reports_and_leaves_pictures(image_folder, tmp_path, capsys):
    folder = tmp_path / "run"
    assert main(["train", "--data", str(image_folder), "--output", str(folder), *QUICK]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"training v2m_nano on {image_folder}"
    assert lines[1:3] == [
        "images of 14x10 pixels (median), 24 images, 3 classes",
        "epochs 2 of 3 steps, batch_size 8, learning rate 0.001: about 24 images to train on",
    ]
    lines[1:3] = []
    facts = dict(line.split(maxsplit=1) for line in lines[1:6])
    assert list(facts) == ["device", "data", "model", "steps", "folder"]
    assert facts["device"].startswith("cpu, ")
    assert facts["data"] == f"24 training and 12 validation images of 3 classes, in {image_folder}"
    assert facts["model"].startswith("v2m_nano, ")
    assert facts["model"].endswith(" parameters, images of 8x12 pixels")
    assert facts["steps"] == "2 epochs of 3 steps of 8 images, adamw, lr 0.001"
    assert facts["folder"] == str(folder)
    assert [line.split()[:2] for line in lines[6:8]] == [["epoch", "1/2"], ["epoch", "2/2"]]
    assert any(line.startswith("validation accuracy") and "12 images" in line for line in lines)
    listed = lines[lines.index(f"Everything is in {folder}:") + 1 : lines.index("Try next:") - 1]
    for line in listed:
        assert (folder / line.split()[0]).exists()
    for name in ("learning_curve", "confusion_matrix", "predictions"):
        assert picture_size(folder / f"{name}.png") > (400, 300)
    model = timm.create_model(f"local-dir:{folder}", pretrained=True)
    assert model(torch.randn(1, 3, 8, 12)).shape == (1, 3)


def test_config_files_and_dotted_overrides(image_folder, tmp_path, capsys):
    file = tmp_path / "settings.yaml"
    file.write_text("epochs: 7\noptimizer:\n  lr: 0.5\n  weight_decay: 0.25\n")
    arguments = [
        "train",
        "--config",
        str(file),
        "--data",
        "digits",
        "--optimizer.lr",
        "0.125",
        "--print_config",
    ]
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    printed = yaml.safe_load(capsys.readouterr().out)
    assert stop.value.code == 0
    assert (printed["epochs"], printed["data"]) == (7, "digits")
    assert (printed["optimizer"]["lr"], printed["optimizer"]["weight_decay"]) == (0.125, 0.25)


def test_the_saved_configuration_can_be_run_again(run, tmp_path, capsys):
    again = tmp_path / "again"
    assert main(["train", "--config", str(run / "train.yaml"), "--output", str(again)]) == 0
    assert (again / "model.safetensors").read_bytes() == (run / "model.safetensors").read_bytes()


def test_resume_takes_the_runs_configuration_and_overrides(run, capsys):
    assert main(["train", "--resume", str(run), "--epochs", "3"]) == 0
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [row["epoch"] for row in rows] == [1, 2, 3]
    code, error = fails(capsys, "train", "--resume", str(run), "--epochs", "2")
    assert (code, error) == (1, "v2m: error: --epochs is 2, but 3 are done, expected 3 or more\n")
    assert "epochs: 3" in (run / "train.yaml").read_text()


def test_ctrl_c_saves_says_how_to_go_on_and_exits_with_130(image_folder, tmp_path):
    folder = tmp_path / "run"
    command = [sys.executable, "-m", "v2m", "train", "--data", str(image_folder), "--output", str(folder)]
    process = subprocess.Popen(
        [*command, *QUICK, "--epochs=100000"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    while not process.stdout.readline().startswith("epoch      1/100000"):
        assert process.poll() is None
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=60)
    assert process.returncode == 130
    answer, end = error.splitlines()
    assert answer == "v2m: stopping after this step, then saving; Ctrl-C again stops at once"
    assert end.startswith("v2m: stopped and saved ")
    assert end.endswith(f"; continue with: v2m train --resume {folder}")
    assert max(path.name for path in folder.glob("checkpoints/*.pt")) > "epoch-00002"


def test_eval_scores_a_run_on_its_own_data_and_on_others(run, image_folder, tmp_path, capsys):
    assert main(["eval", str(run), "--output", str(tmp_path / "pictures")]) == 0
    out = capsys.readouterr().out
    rows = {line.split()[0]: line.split()[1:] for line in out.splitlines() if line.strip()}
    assert [rows[name][0] for name in ("blue", "green", "red")] == ["4", "4", "4"]
    accuracy = json.loads((run / "metrics.jsonl").read_text().splitlines()[-1])["val_top1"]
    assert f"validation accuracy {accuracy:.2%}" in out
    assert picture_size(tmp_path / "pictures" / "confusion_matrix.png") > (300, 300)

    (image_folder / "val" / "red" / "1.png").write_bytes(b"broken")
    for workers in ("0", "1"):
        command = ["eval", str(run / "model.safetensors"), "--data", str(image_folder), "--workers", workers]
        assert main(command) == 1
        out = capsys.readouterr().out
        assert "11 images)" in out
        assert "1 of 12 images cannot be read and do not count, the first is" in out
        assert f"{image_folder}/val/red/1.png (" in out
    (row,) = map(json.loads, (run / "eval-images" / "unreadable.jsonl").read_text().splitlines())
    assert (row["split"], row["image"]) == ("val", f"{image_folder}/val/red/1.png")
    code, error = fails(capsys, "eval", str(run), "--data", "digits")
    assert (code, "the classes of digits are" in error) == (1, True)


def test_predict_does_all_files_and_reports_the_broken_ones(run, image_folder, capsys):
    images = image_folder / "val"
    (images / "red" / "broken.png").write_bytes(b"broken")
    missing = image_folder / "missing.png"
    assert (
        main(["predict", str(run), str(images), str(missing), "--json", "--top", "2", "--batch_size", "5"])
        == 1
    )
    out, err = capsys.readouterr()
    rows = [json.loads(line) for line in out.splitlines()]
    good = sorted(str(path) for path in images.rglob("*.png") if path.name != "broken.png")
    assert [row["image"] for row in rows] == good
    for row in rows:
        first, second = row["predictions"]
        assert first["probability"] >= second["probability"]
        assert {first["class"], second["class"]} < {"red", "green", "blue"}
    assert "missing.png: no such file" in err
    assert "broken.png: not a readable image" in err

    model = timm.create_model(f"local-dir:{run}", pretrained=True).eval()
    transform = timm.data.create_transform(**timm.data.resolve_data_config({}, model=model))
    image = transform(read_image(rows[7]["image"]).convert("RGB"))
    probability, index = model(image[None]).softmax(-1).max(-1)
    assert rows[7]["predictions"][0]["probability"] == pytest.approx(probability.item(), abs=1e-5)
    assert rows[7]["predictions"][0]["class"] == ["blue", "green", "red"][index]

    assert main(["predict", str(run), rows[0]["image"]]) == 0
    assert rows[0]["predictions"][0]["class"] in capsys.readouterr().out


def test_predict_turns_photos_upright_and_names_what_it_cannot_read(run, image_folder, tmp_path, capsys):
    photos = tmp_path / "photos"
    photos.mkdir()
    exif = Image.Exif()
    exif[0x0112] = 6
    with Image.open(image_folder / "val" / "red" / "0.png") as image:
        image.save(photos / "a.gif")
        image.save(photos / "b.png")
        image.transpose(Image.Transpose.ROTATE_90).save(photos / "c.png", exif=exif)
    (photos / "d.heic").write_bytes(b"")
    (photos / "@eaDir").mkdir()
    Image.new("RGB", (9, 9)).save(photos / "@eaDir" / "a.jpg")
    assert main(["predict", str(run), str(photos), "--json"]) == 1
    out, err = capsys.readouterr()
    rows = [json.loads(line) for line in out.splitlines()]
    assert [Path(row["image"]).name for row in rows] == ["a.gif", "b.png", "c.png"]
    assert rows[2]["predictions"] == rows[1]["predictions"]
    assert f"v2m: error: {photos}: 1 file left out" in err
    assert f"first {photos / 'd.heic'}" in err
    assert main(["predict", str(run), str(photos / "d.heic")]) == 1
    assert "d.heic: not a readable image (of a format that Pillow does not read" in capsys.readouterr().err


def test_predict_into_a_file_writes_a_line_per_image_with_any_name(run, image_folder, capsys):
    names = ["[draft]", "a[", "b]", "long " * 30]
    for name in names:
        (image_folder / name).mkdir()
        shutil.copy(image_folder / "val" / "red" / "0.png", image_folder / name / "[x] é.png")
    assert main(["predict", str(run), *(str(image_folder / name) for name in names), "--top", "1"]) == 0
    lines = [line.split("\t") for line in capsys.readouterr().out.splitlines()]
    assert [path for path, _ in lines] == [str(image_folder / name / "[x] é.png") for name in names]


def test_a_closed_pipe_is_no_error(run, image_folder):
    command = [sys.executable, "-m", "v2m", "predict", str(run), *[str(image_folder)] * 3, "--json"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    process.stdout.close()
    assert process.stderr is not None
    doing, *others = process.stderr.read().splitlines()
    assert doing.startswith("classifying ")
    assert [line for line in others if not line.startswith("with the last weights, of epoch 2")] == []
    process.stderr.close()
    assert process.wait(timeout=60) == 141


def test_eval_on_other_data_leaves_the_runs_pictures(run, image_folder, capsys):
    before = (run / "predictions.png").read_bytes()
    image_folder.rename(image_folder.with_name("other"))
    assert main(["eval", str(run), "--data", str(image_folder.with_name("other"))]) == 0
    assert (run / "predictions.png").read_bytes() == before
    assert (run / "eval-other" / "predictions.png").is_file()


def test_refine_compares_sweeps_with_the_exact_recurrence(image_folder, tmp_path, capsys):
    folder = tmp_path / "run"
    args = ["--model_args", "{depth: 1, embed_dim: 16, d_state: 2, mixer: exact}"]
    assert main(["train", "--data", str(image_folder), "--output", str(folder), *QUICK, *args]) == 0
    capsys.readouterr()
    assert main(["refine", str(folder), "--most", "3", "--images", "6"]) == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    table = {row[0]: row[1:] for row in rows if row and row[0] in ("exact", "0", "1", "2", "3")}
    assert list(table) == ["exact", "0", "1", "2", "3"]
    assert float(table["exact"][0]) == 0 < float(table["3"][0]) < float(table["0"][0])
    assert picture_size(folder / "refinement.png") > (400, 300)


def test_refine_needs_coupled_scans(run, capsys):
    assert main(["refine", str(run)]) == 1
    assert capsys.readouterr().err == ("v2m: error: model: it has no coupled scans, expected mixer 'exact'\n")


def test_list_shows_every_model_with_its_parameters(capsys):
    assert main(["list"]) == 0
    out = capsys.readouterr().out
    assert all(name in out for name in v2m.list_models())
    assert "6,852,712" in out
    assert main(["list", "*small*"]) == 0
    assert "tiny" not in capsys.readouterr().out


def test_convert_makes_a_folder_that_everything_else_takes(tmp_path, capsys):
    released = v2m.create_model(
        "v2m_nano", depth=1, num_classes=3, img_size=8, in_chans=3, directions="released"
    )
    names = {"blocks.": "layers.", "norm.weight": "norm_f.weight"}
    state = {}
    for name, value in released.state_dict().items():
        prefix = next((old for old in names if name.startswith(old)), "")
        state[names.get(prefix, "") + name.removeprefix(prefix)] = value
    state["pos_embed"] = state["pos_embed"].flatten(1, 2)
    torch.save({"model": state, "epoch": 3}, tmp_path / "released.pth")
    assert set(read_released_checkpoint(tmp_path / "released.pth")) == set(released.state_dict())

    (tmp_path / "labels.txt").write_text("ant\nbee\ncat\n")
    arguments = ["convert", str(tmp_path / "released.pth"), str(tmp_path / "ours")]
    assert main([*arguments, "--labels", str(tmp_path / "labels.txt")]) == 0
    capsys.readouterr()
    Image.new("RGB", (8, 8), "red").save(tmp_path / "red.png")
    ours = f"local-dir:{tmp_path / 'ours'}"  # as timm and v2m.load take it
    assert main(["predict", ours, str(tmp_path / "red.png"), "--json"]) == 0
    row = json.loads(capsys.readouterr().out)
    assert {p["class"] for p in row["predictions"]} == {"ant", "bee", "cat"}
    model = timm.create_model(f"local-dir:{tmp_path / 'ours'}", pretrained=True).eval()
    images = torch.randn(2, 3, 8, 8)
    assert torch.equal(model(images), released.eval()(images))

    assert main(["convert", arguments[1], str(tmp_path / "geometric"), "--decay", "geometric"]) == 0
    assert "with 3 classes and geometric decay is in" in capsys.readouterr().out
    twin = timm.create_model(f"local-dir:{tmp_path / 'geometric'}", pretrained=True).eval()
    assert (twin.config.decay, twin.config.directions) == ("geometric", "released")
    assert_close(twin(images), model(images), "float32")  # nothing was trained

    code, error = fails(capsys, *arguments)
    assert (code, "is not empty" in error) == (1, True)
    (tmp_path / "labels.txt").write_text("ant\n")
    other = ["convert", arguments[1], str(tmp_path / "other"), "--labels", str(tmp_path / "labels.txt")]
    assert "has 1 lines, expected 3" in fails(capsys, *other)[1]
    (tmp_path / "labels.txt").write_text("ant\n\ncat\n")
    assert "labels.txt, line 2 is empty, expected a name" in fails(capsys, *other)[1]


def test_convert_fits_geometric_decay_to_a_trained_model(tmp_path, capsys):
    run, output = str(tmp_path / "run"), str(tmp_path / "geometric")
    assert main(["train", "--data=digits", "--epochs=1", "--device=cpu", f"--output={run}", *DIGITS]) == 0
    capsys.readouterr()
    assert main(["convert", run, output, "--decay", "geometric"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == [
        "mixer",
        "rates,",
        "median",
        "largest",
        "decays,",
        "one",
        "cell",
        "any",
        "distance",
    ]
    first, total = (line.split() for line in lines[1:3])
    assert (first[0], total) == ("blocks.0.mixer", ["all", *first[1:]])
    largest, worst = first[3], first[6]
    assert 0 < float(largest) < 50
    assert 0 < float(worst) < 0.2
    assert lines[-1] == f"v2m_nano with 10 classes and geometric decay is in {output}"

    loaded, before = v2m.load(output), v2m.load(run)
    images = torch.randn(20, 1, 8, 8)
    scores, expected = loaded.model(images), before.model(images)
    assert not torch.equal(scores, expected)
    assert (scores - expected).abs().max() < 0.05 * expected.abs().max()
    model = timm.create_model(f"local-dir:{output}", pretrained=True).eval()
    assert torch.equal(model(images), scores)
    assert main(["eval", output, "--data=digits"]) == 0
    (line,) = (row for row in capsys.readouterr().out.splitlines() if "validation accuracy" in row)
    trained = json.loads(Path(run, "metrics.jsonl").read_text())["val_top1"]
    assert float(line.split()[2].rstrip("%")) == pytest.approx(100 * trained, abs=3)

    for arguments, message in (
        ((output, "--decay=geometric"), "has geometric rates already, there is nothing to convert"),
        ((run,), "run: a model of this package, only its decay rates can be converted: --decay geometric"),
        ((run, "--decay=geometric", "--labels=x"), "has its own names of classes, leave --labels out"),
        ((run, "--decay=free"), "--decay: 'free' is none of geometric"),
        ((f"{tmp_path}", "--decay=geometric"), "no model there, expected a run folder with config.json"),
    ):
        source, *options = arguments
        assert message in fails(capsys, "convert", source, str(tmp_path / "other"), *options)[1]
    assert not (tmp_path / "other").exists()
    assert "is not empty" in fails(capsys, "convert", run, output, "--decay=geometric")[1]


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (
            ["train", "--data", "digits", "--optimizer.lrr", "1"],
            2,
            ["--optimizer.lrr", "did you mean --optimizer.lr?"],
        ),
        (["train", "--data", "digits", "--epoch", "1"], 2, ["did you mean --epochs?"]),
        (
            ["train", "--data", "digits", "--optimizer.rate", "1"],
            2,
            ["did you mean --optimizer.name or --optimizer.lr"],
        ),
        (["predict", "run", "x.png", "--batch_size", "0"], 2, ["batch_size", "0"]),
        (["trian"], 2, ["did you mean 'train'?"]),
        (["train"], 2, ["required", "data"]),
        (["train", "--data", "digits", "--epochs", "many"], 2, ["epochs", "int", "many"]),
        (["train", "--data", "digits", "--config", "/no/file.yaml"], 2, ["/no/file.yaml"]),
        (
            ["train", "--data", "digitz"],
            1,
            ["'digitz' is neither a dataset (digits, fashion-mnist, ", ", camvid) nor a folder"],
        ),
        (
            ["train", "--data", "digits", "--model", "v2m_nanno"],
            1,
            ["'v2m_nanno' is no model, nearest: v2m_nano"],
        ),
        (["train", "--data", "digits", "--model_args", "{directions: up}"], 1, ["'up'", "'corners'"]),
        (["train", "--data", "digits", "--epochs", "0"], 1, ["epochs is 0"]),
        (["train", "--resume", "/no/run"], 1, ["/no/run is no run folder"]),
        (["eval", "/no/run"], 1, ["/no/run: no model there"]),
        (["predict", "/no/run", "x.png"], 1, ["/no/run: no model there"]),
        (["predict", "v2m_nano", "x.png"], 1, ["there are no trained weights of this model"]),
        (["eval", "resnet18", "--data", "digits"], 1, ["resnet18 is a model of timm, expected a run folder"]),
        (["convert", "/no/file.pth", "/no/output"], 1, ["/no/file.pth"]),
        (["list", "*huge*"], 1, ["no model matches '*huge*'"]),
    ],
)
def test_mistakes_get_one_line_and_an_exit_code(capsys, arguments, code, words):
    got, error = fails(capsys, *arguments)
    assert got == code
    for word in words:
        assert word in error


@pytest.mark.parametrize("folder", ["elsewhere", "source"])
def test_python_m_leaves_the_current_folder_out(tmp_path, monkeypatch, folder):
    monkeypatch.delenv("PYTHONSAFEPATH", raising=False)
    source = Path(v2m.__file__).parents[1]
    monkeypatch.setenv("PYTHONPATH", str(source) if folder == "elsewhere" else "")
    (tmp_path / "jsonargparse.py").write_text("open('imported', 'w')")
    current = tmp_path if folder == "elsewhere" else source
    command = [sys.executable, "-m", "v2m", "recipes", "digits"]
    done = subprocess.run(command, cwd=current, capture_output=True, text=True)
    assert done.returncode == 0
    assert not (tmp_path / "imported").exists()
