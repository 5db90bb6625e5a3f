"""Commands on datasets by name, from small ones in the layouts of the originals."""

import pytest
import yaml

from tests.cli.test_cli import fails
from tests.data.originals import write_camvid, write_cifar, write_tiny_imagenet
from v2m.cli import main

MODEL = ["--model", "v2m_nano", "--model_args", '{"embed_dim": 8, "depth": 1}', "--device", "cpu"]
QUICK = ["--epochs", "1", "--batch_size", "4"]


def test_a_classifier_is_trained_scored_and_probed_by_name(tmp_path, monkeypatch, capsys):
    write_cifar(tmp_path, "cifar10", monkeypatch)
    run, data = str(tmp_path / "run"), ["--data", "cifar10", "--data_dir", str(tmp_path)]
    assert main(["train", *data, *MODEL, *QUICK, "--input.img_size", "8", "--output", run]) == 0
    assert f"cifar10: found in {tmp_path}/cifar-10-batches-py\n" in capsys.readouterr().err
    config = yaml.safe_load((tmp_path / "run" / "train.yaml").read_text())
    assert (config["data"], config["optimizer"]["lr"]) == ("cifar10", 0.002)
    assert main(["eval", run, "--data_dir", str(tmp_path)]) == 0
    assert "cifar10 class 2" in capsys.readouterr().out
    features = str(tmp_path / "features.npz")
    assert main(["embed", run, "cifar10", "--data_dir", str(tmp_path), "--out", features]) == 0
    assert "features of 4 images, cifar10 val" in capsys.readouterr().out
    assert main(["probe", run, *data]) == 0
    assert "Accuracy on 4 validation images by 20 training images" in capsys.readouterr().out


def test_camvid_chooses_segmentation(tmp_path, monkeypatch, capsys):
    pytest.importorskip("segmentation_models_pytorch")
    write_camvid(tmp_path, monkeypatch)
    run, data = str(tmp_path / "run"), ["--data", "camvid", "--data_dir", str(tmp_path)]
    crop = ["--input.crop_size", "32", "--device", "cpu"]
    assert main(["train", *data, *QUICK, *crop, "--output", run]) == 0
    config = yaml.safe_load((tmp_path / "run" / "train.yaml").read_text())
    assert (config["task"], config["head"]["decoder"]) == ("segmentation", "fpn")
    assert main(["eval", run, "--data_dir", str(tmp_path)]) == 0
    assert "bicyclist" in capsys.readouterr().out


def test_data_check_knows_the_names(tmp_path, monkeypatch, capsys):
    write_tiny_imagenet(tmp_path, monkeypatch)
    write_camvid(tmp_path, monkeypatch)
    for name, found in (("tiny-imagenet", "2 crane (n01)"), ("camvid", "ignored pixels")):
        output = ["--output", str(tmp_path / name), "--workers", "0"]
        # Images of one colour are twins, which makes the exit code 1.
        assert main(["data", "check", name, "--data_dir", str(tmp_path), *output]) in (0, 1)
        assert found in capsys.readouterr().out


@pytest.mark.parametrize(
    ("task", "data", "right"),
    [
        ("classification", "camvid", "segmentation"),
        ("segmentation", "cifar10", "classification"),
        ("detection", "digits", "classification"),
    ],
)
def test_another_task_is_refused_with_the_right_one(tmp_path, task, data, right, capsys):
    arguments = ["train", "--task", task, "--data", data, "--data_dir", str(tmp_path)]
    code, error = fails(capsys, *arguments, "--output", str(tmp_path / "run"))
    assert code == 1
    assert error.endswith(f"{data} is for {right}, not for {task}: give --task {right}\n")
    assert not (tmp_path / "run").exists()
