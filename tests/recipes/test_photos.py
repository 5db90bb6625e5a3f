from dataclasses import replace

import pytest
from PIL import Image

from v2m.cli.settings import find_start
from v2m.data.classes.survey import Survey, survey
from v2m.recipes import starting_config
from v2m.recipes.photos import CHOSEN, Given, describe, suit
from v2m.studies.run import train_arguments
from v2m.tasks.classification.config import ClassificationConfig
from v2m.tasks.config import settings


def make(root, size, classes=2, images=4):
    for label in range(classes):
        (root / f"class{label}").mkdir(parents=True)
        for i in range(images):
            Image.new("RGB", size, (label, i, 0)).save(root / f"class{label}" / f"{i}.png")
    return str(root)


def start(*arguments):
    return find_start(["train", *arguments])


@pytest.mark.parametrize(
    ("size", "model", "img_size"),
    [
        ((8, 8), "v2m_nano", 16),
        ((32, 32), "v2m_nano", 32),
        ((64, 64), "v2m_micro", 64),
        ((640, 480), "v2m_lite_nano", 128),
    ],
)
def test_the_model_follows_from_the_size_of_the_images(tmp_path, size, model, img_size):
    config = start("--data", make(tmp_path / "flat", size))
    assert (config.model, config.input.img_size) == (model, img_size)


def test_what_is_given_wins_and_the_rest_follows(tmp_path):
    data = make(tmp_path / "flat", (640, 480), images=20)
    config = start("--data", data)
    assert (config.batch_size, config.epochs) == (8, 80)
    assert start("--data", data, "--model", "v2m_nano").input.img_size is None
    assert start("--data", data, "--input.img_size=32").model == "v2m_nano"
    given = start("--data", data, "--batch_size=32", "--epochs=1000")
    assert given.optimizer.lr == 2 * config.optimizer.lr
    assert given.ema_decay > config.ema_decay
    assert start("--data", data, "--pretrained=timm").model == "resnet18"
    assert start("--data", data, "--pretrained=timm").optimizer.lr < config.optimizer.lr
    (tmp_path / "my.yaml").write_text("input: {img_size: 64}\nbatch_size: 4\n")
    config = start("--data", data, "--config", str(tmp_path / "my.yaml"))
    assert (config.model, config.batch_size) == ("v2m_micro", 4)
    # Values that make no sense are the parser's to refuse.
    for option in ("--epochs=-1", "--batch_size=0", "--val_share=nan", "--input.img_size=x", "--epochs=1e9"):
        assert start("--data", data, option).model


def test_recipes_named_data_and_other_tasks_keep_their_settings(tmp_path):
    data = make(tmp_path / "flat", (640, 480))
    assert start("--data", data, "--recipe", "imagenet-tiny") == starting_config("imagenet-tiny")
    assert start("--data", "digits") == starting_config(data="digits")
    assert start("--data", data, "--task", "detection") == starting_config(task="detection")
    (tmp_path / "empty").mkdir()
    for other in (str(tmp_path / "no such folder"), str(tmp_path / "empty")):
        assert start("--data", other) == starting_config()


@pytest.mark.parametrize("images", [2, 3, 10, 100, 1000, 20_000, 100_000])
def test_settings_are_fit_for_any_number_of_images(images, monkeypatch):
    found = Survey(images, 2, 640, 480, has_val=False)
    monkeypatch.setattr("v2m.recipes.photos.look_at", lambda *_: found)
    config = suit(ClassificationConfig("FOLDER"), "FOLDER", Given())
    train = images * 0.8
    assert 4 <= config.batch_size <= max(4, train / 4)
    assert 12 <= config.epochs <= 80
    assert 0.5 <= config.ema_decay <= 0.9999
    assert 1e-4 < config.optimizer.lr <= 2e-3
    changed = {k for k, v in settings(config).items() if v != settings(ClassificationConfig("FOLDER"))[k]}
    assert changed <= set(CHOSEN)
    lines = describe(config)
    assert lines[0].startswith(f"model {config.model} at {config.input.img_size}x")
    assert any("few to train" in line for line in lines) == (train < 2000)
    assert any("--model resnet18 --pretrained timm" in line for line in lines) == (train < 2000)
    assert describe(replace(config, pretrained="timm", model="resnet50"))[0].startswith("photos of 640x480")


def test_a_table_and_folders_with_a_split_are_looked_at(tmp_path, image_folder):
    data = make(tmp_path / "flat", (100, 300))
    rows = "".join(f"class{c}/{i}.png,{c}\n" for c in range(2) for i in range(4))
    (tmp_path / "flat" / "l.csv").write_text(f"image,label\n{rows}")
    assert survey(f"{data}/l.csv") == survey(data) == Survey(8, 2, 100, 300, has_val=False)
    assert survey(str(image_folder)) == Survey(24, 3, 14, 10, has_val=True)


def test_only_headers_of_a_sample_are_read(tmp_path, monkeypatch):
    data = make(tmp_path / "flat", (9, 7), classes=3, images=200)
    for path in (tmp_path / "flat").rglob("*.png"):
        path.write_bytes(path.read_bytes()[:45])  # the header, and no pixels
    looked = []
    monkeypatch.setattr(Image.Image, "load", lambda *_: looked.append("pixels"))
    assert survey(data) == Survey(600, 3, 9, 7, has_val=False)
    assert not looked
    for path in (tmp_path / "flat").rglob("*.png"):
        path.write_bytes(b"")
    assert survey(data) is None


def test_images_that_were_added_are_seen(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    make(tmp_path / "flat", (9, 7))
    before = survey("flat")
    Image.new("RGB", (9, 7)).save(tmp_path / "flat" / "class0" / "new.png")
    assert (before.images, survey("flat").images) == (8, 9)


def test_a_study_gives_what_would_else_be_chosen(tmp_path):
    data = make(tmp_path / "flat", (640, 480))
    config = ClassificationConfig(data, epochs=3)
    arguments = train_arguments(config)
    given = {a.removeprefix("--") for a in arguments if a.startswith("--")}
    assert set(CHOSEN) <= given
    assert not set(CHOSEN) & {a.removeprefix("--") for a in train_arguments(ClassificationConfig("digits"))}
