import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import timm
from PIL import Image

from tests.cli.test_cli import fails
from v2m.cli import main
from v2m.data import ImageSpec
from v2m.features.files import Features, read_features, write_features
from v2m.tasks.classification.evaluation import ClassificationEvaluator
from v2m.tasks.classification.saved import save

SPEC = ImageSpec((8, 8), 1, (0.305,), (0.376,), 1.0, "bicubic")
PARTS = 3
"""Of the training images of the digits."""


@pytest.fixture
def run(tmp_path):
    """A model that takes a few tenths of a second for a part."""
    folder = tmp_path / "run"
    folder.mkdir()
    model = timm.create_model("v2m_nano", in_chans=1, num_classes=10, img_size=8)
    save(model, ClassificationEvaluator(list("0123456789"), SPEC), folder)
    return folder


def embed_digits(run, output, *options):
    return ["embed", str(run), "digits", "--split", "train", "--out", str(output), *options]


def test_a_killed_command_goes_on_to_the_same_bytes(run, tmp_path, capsys):
    output = tmp_path / "features.npz"
    arguments = embed_digits(run, output, "--device", "cpu")
    process = subprocess.Popen([sys.executable, "-m", "v2m", *arguments], stderr=subprocess.DEVNULL)
    folder = tmp_path / "features.npz.parts"
    while not list(folder.glob("part-*.npz")):
        assert process.poll() is None
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    left = len(list(folder.glob("part-*.npz")))
    assert 1 <= left < PARTS
    assert not output.exists()

    assert main(arguments) == 0
    captured = capsys.readouterr()
    doing, *others = captured.err.splitlines()
    assert doing.startswith(f"embedding digits train by {run} on cpu, ")
    assert others == [f"goes on: {left} of 3 parts are there"]
    assert captured.out == f"{output}: features of 1,437 images, digits train by {run}\n"
    whole = tmp_path / "whole.npz"
    assert main(embed_digits(run, whole, "--device", "cpu")) == 0
    assert output.read_bytes() == whole.read_bytes()
    assert not folder.exists()


def test_two_processes_equal_one(run, tmp_path):
    one, two = tmp_path / "one.npz", tmp_path / "two.npz"
    assert main(embed_digits(run, one)) == 0
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    command = [*launcher, "-m", "v2m", *embed_digits(run, two)]
    environment = os.environ | dict(ACCELERATE_USE_CPU="1", OMP_NUM_THREADS="1")
    result = subprocess.run(command, capture_output=True, text=True, timeout=120, env=environment)
    assert result.returncode == 0, result.stderr
    assert result.stdout == f"{two}: features of 1,437 images, digits train by {run}\n"
    first, second = read_features(one), read_features(two)
    np.testing.assert_allclose(second.features, first.features, rtol=1e-5, atol=1e-6)
    assert second.index.tolist() == first.index.tolist() == list(range(1437))
    assert second.targets.tolist() == first.targets.tolist()
    assert (second.names, second.facts) == (first.names, first.facts)


def test_ctrl_c_says_how_to_go_on(run, tmp_path, monkeypatch, capsys):
    def interrupted(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr("v2m.features.embed.embed", interrupted)
    assert main(embed_digits(run, tmp_path / "f.npz")) == 130
    end = "v2m: stopped; the same command goes on after the last whole part"
    assert capsys.readouterr().err.splitlines()[1:] == [end]


def test_unreadable_images_are_named_and_counted(run, image_folder, tmp_path, capsys):
    bad = image_folder / "val" / "red" / "1.png"
    bad.write_bytes(b"broken")
    output = tmp_path / "f.parquet"
    assert main(["embed", str(run), str(image_folder), "--out", str(output)]) == 0
    captured = capsys.readouterr()
    assert captured.out == f"{output}: features of 11 images, 1 left out, {image_folder} val by {run}\n"
    (line,) = captured.err.splitlines()[1:]
    assert line.startswith(f"v2m: left out: {bad}: not a readable image (")


def test_images_elsewhere_are_read_by_an_option_and_then_anew(run, image_folder, tmp_path, capsys):
    datasets = pytest.importorskip("datasets")
    data, output = tmp_path / "tables", tmp_path / "f.npz"
    data.mkdir()
    rows = dict(image=[], label=[])
    for place, path in enumerate(sorted(image_folder.glob("val/*/*.png"))):
        rows["image"].append(dict(bytes=path.read_bytes() if place % 2 else None, path=str(path)))
        rows["label"].append(path.parent.name)
    for split in ("train", "val"):
        datasets.Dataset.from_dict(rows).to_parquet(data / f"{split}.parquet")
    command = ["embed", str(run), str(data), "--out", str(output), "--data_dir", str(tmp_path)]
    assert main(command) == 0
    captured = capsys.readouterr()
    assert "features of 6 images, 6 left out" in captured.out
    assert captured.err.count("; --allow_outside true reads it") == 6
    assert main([*command, "--allow_outside=true"]) == 0
    assert "features of 12 images, " in capsys.readouterr().out
    assert main([*command, "--allow_outside=true"]) == 0
    assert "has them already" in capsys.readouterr().err


def scores_of(out):
    """The cells of each row of a table, by its first cell."""
    return {line.split()[0]: line.split()[1:] for line in out.splitlines() if line.strip()}


def test_probe_compares_models_and_keeps_their_features(run, image_folder, tmp_path, capsys):
    output = tmp_path / "results"
    random = "random/v2m_nano"
    arguments = ["probe", str(run), random, "--data", str(image_folder), "--output", str(output)]
    assert main(arguments) == 0
    out = capsys.readouterr().out
    rows = scores_of(out)
    assert rows["model"] == ["features", "10-NN", "20-NN", "24-NN", "linear"]
    results = json.loads((output / "probe.json").read_text())
    for name, result in zip((str(run), random), results, strict=True):
        accuracies = [*result["knn"].values(), result["linear"]]
        assert rows[name] == ["64", *(f"{accuracy['top1']:.2%}" for accuracy in accuracies)]
        assert result["facts"]["data"]["split"] == "val"
    assert results[1]["linear"]["top1"] == 1.0, "colours are told apart without training"
    with Image.open(output / "probe.png") as image:
        assert image.size > (800, 300)

    assert main(arguments) == 0
    captured = capsys.readouterr()
    assert captured.err.count("has them already") == 4
    assert captured.out == out


def test_probe_takes_files_of_features(tmp_path, capsys):
    facts = dict(
        model=dict(source="runs/one", sha256="a"),
        classes=list("abcdefgh"),
        images={},
        data=dict(source="dots"),
    )
    generator = np.random.default_rng(0)
    for name, count in (("train.npz", 80), ("val.parquet", 40)):
        targets = np.arange(count) % 8
        values = np.eye(8)[targets] + 0.4 * generator.normal(size=(count, 8))
        features = Features(values.astype(np.float32), targets, np.arange(count), [""] * count, facts)
        write_features(tmp_path / name, features)
    files = ["--train", str(tmp_path / "train.npz"), "--val", str(tmp_path / "val.parquet")]
    assert main(["probe", *files]) == 0
    rows = scores_of(capsys.readouterr().out)
    assert " ".join(rows["model"]) == "features 10-NN 20-NN 80-NN linear 20-NN top-5 linear top-5"
    (result,) = json.loads((tmp_path / "probe.json").read_text())
    top5 = [result["knn"]["20"]["top5"], result["linear"]["top5"]]
    assert rows["one"][-2:] == [f"{share:.2%}" for share in top5]
    assert min(top5) > result["linear"]["top1"] > 0.5


def test_probe_of_one_run_goes_into_its_folder(run, image_folder, capsys):
    assert main(["probe", str(run), "--data", str(image_folder)]) == 0
    folder = run / "probe-images"
    assert sorted(path.name for path in folder.iterdir()) == [
        "probe.json",
        "probe.png",
        "train.npz",
        "val.npz",
    ]
    out = capsys.readouterr().out
    assert "12 validation images by 24 training images" in out
    assert "24-NN" in out
    assert "top-5" not in out


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["embed", "x", "digits", "--out", "f.csv"], 1, ["f.csv ends in '.csv', expected .npz"]),
        (["embed", "/no/run", "digits", "--out", "f.npz"], 1, ["/no/run: no model there"]),
        (["embed", "x", "--out", "f.npz"], 2, ["required", "data"]),
        (["embed", "x", "digits", "--out", "f.npz", "--split", "all"], 2, ["split", "all"]),
        (["probe", "--data", "digits"], 1, ["models: expected models and --data"]),
        (["probe", "x"], 1, ["models: expected models and --data"]),
        (["probe", "x", "--train", "a.npz", "--val", "b.npz"], 1, ["train: expected both --train and --val"]),
        (["probe", "--train", "a.npz"], 1, ["train: expected both --train and --val"]),
        (["probe", "--train", "/no/a.npz", "--val", "/no/b.npz"], 1, ["/no/a.npz: no such file"]),
        (["probe", "timm/v2m_nano", "--data", "digits"], 1, ["timm has no weights of v2m_nano"]),
        (["probe", "random/v2m_nano", "--data", "digitz"], 1, ["'digitz' is neither a dataset"]),
    ],
)
def test_mistakes_get_one_line_and_an_exit_code(capsys, arguments, code, words):
    got, error = fails(capsys, *arguments)
    assert got == code
    for word in words:
        assert word in error
