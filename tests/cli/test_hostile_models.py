"""What commands say of saved models that were changed, or that a stranger made."""

import json

import pytest
import torch
from PIL import Image

from tests.tasks.test_hostile_folders import NANO, edit
from tests.tasks.test_model_folder import make_classifier
from v2m.cli import main
from v2m.tasks import load_model
from v2m.tasks.evaluation import predict_images
from v2m.tasks.model_folder import CONFIG


@pytest.fixture
def folder(tmp_path):
    return make_classifier(tmp_path / "nano", "v2m_nano", NANO)


@pytest.fixture
def image(tmp_path):
    Image.new("RGB", (32, 32)).save(tmp_path / "image.png")
    return tmp_path / "image.png"


def test_folders_without_sums_are_told_in_one_line(folder, image, capsys):
    assert main(["predict", str(folder), str(image)]) == 0
    assert "note: " not in capsys.readouterr().err
    edit(folder)
    assert main(["predict", str(folder), str(image)]) == 0
    captured = capsys.readouterr()
    assert (
        captured.err.splitlines()[0]
        == f'note: {folder}: config.json has no "sha256" of v2m, so its files are taken as they are'
    )
    assert captured.out.startswith(str(image))


@pytest.mark.parametrize("command", ["predict", "eval", "embed", "probe", "refine", "train"])
def test_every_command_refuses_a_folder_in_one_line(folder, image, image_folder, tmp_path, capsys, command):
    edit(folder, model_args=dict(depth=60_000))
    options = dict(
        predict=[str(folder), str(image)],
        eval=[str(folder), f"--data={image_folder}"],
        refine=[str(folder), f"--data={image_folder}"],
        embed=[str(folder), str(image_folder), f"--out={tmp_path / 'f.npz'}"],
        probe=[str(folder), f"--data={image_folder}"],
        train=[
            f"--data={image_folder}",
            f"--pretrained={folder}",
            "--model=v2m_nano",
            f"--output={tmp_path / 'run'}",
            "--epochs=1",
            "--workers=0",
        ],
    )
    assert main([command, *options[command]]) == 1
    *_, line = capsys.readouterr().err.splitlines()
    assert line.startswith("v2m: error: ")
    assert f"{folder}: the model cannot be loaded (the settings ask for a model of more than" in line


def test_changed_settings_are_refused_with_the_way_to_take_them(folder, image, capsys):
    config = json.loads((folder / CONFIG).read_text())
    (folder / CONFIG).write_text(json.dumps(config | dict(label_names=["x", "y", "z"])))
    assert main(["predict", str(folder), str(image)]) == 1
    assert 'to take it as it is, delete "sha256" from config.json' in capsys.readouterr().err
    edit(folder)
    assert main(["predict", str(folder), str(image)]) == 0
    assert "x " in capsys.readouterr().out


def test_names_of_classes_cannot_steer_a_terminal(folder, image, capsys):
    edit(folder, label_names=["\x1b[2J", "a\nb", "c\u202ed"])
    assert main(["predict", str(folder), str(image)]) == 0
    captured = capsys.readouterr().out
    assert captured.count("\n") == 1
    assert "\x1b" not in captured
    assert "\u202e" not in captured


def test_scores_that_are_no_numbers_are_told(folder, image):
    saved = load_model(folder)
    torch.nn.init.constant_(saved.model.head.bias, torch.nan)
    ((path, found),) = predict_images(saved.model, saved.evaluator, [image], torch.device("cpu"), 1)
    assert path == image
    assert "scores are infinite or NaN" in str(found)
