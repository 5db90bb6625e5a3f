"""Training from Python: how settings are named, and what comes out."""

from pathlib import Path

import pytest

import v2m
from v2m.recipes import RECIPES
from v2m.recipes.run import configure
from v2m.tasks.classification.config import ClassificationConfig
from v2m.tasks.config import OptimizerConfig


def test_a_run_is_trained_and_loaded(image_folder, tmp_path, capsys):
    small = dict(model_args=dict(embed_dim=8, depth=1), device="cpu", epochs=2)
    run = v2m.train(data=image_folder, output=tmp_path / "run", optimizer=dict(lr=1e-3), **small)
    assert "epoch 2/2" in capsys.readouterr().out
    assert run.folder == tmp_path / "run"
    assert [row["epoch"] for row in run.history] == [1, 2]
    assert run.scores["top1"] == run.history[-1]["val_top1"]
    assert (run.folder / "learning_curve.png").is_file()
    model = run.load()
    assert model.classes == ["blue", "green", "red"]
    images = sorted((image_folder / "val" / "red").iterdir())
    assert [found.label in model.classes for found in model.predict(images)] == [True] * 4
    quiet = v2m.train(data=image_folder, output=tmp_path / "quiet", quiet=True, **small)
    assert capsys.readouterr().out == ""
    assert quiet.folder != run.folder


def test_settings_start_from_the_recipe_and_are_changed_by_name():
    own = RECIPES["digits"].config
    assert configure(None, None, dict(data="digits")).epochs == own.epochs
    found = configure(None, "digits", {"epochs": 3, "optimizer.lr": 1, "augment": {"scale": [0.5, 1]}})
    assert (found.epochs, found.optimizer.lr, found.augment.scale) == (3, 1.0, (0.5, 1.0))
    assert found.optimizer.weight_decay == own.optimizer.weight_decay
    assert found.data == "digits"
    config = ClassificationConfig(data="digits", epochs=7)
    changed = dict(seed=20261128, output=Path("here"), optimizer=OptimizerConfig(lr=0.5), trackers=[])
    found = configure(config, None, changed)
    assert (found.epochs, found.seed, found.output, found.optimizer.lr) == (7, 20261128, "here", 0.5)
    assert configure(config, None, {}) == config
    found = configure(
        None, None, dict(data="scenes", task="segmentation", input=dict(label_map={0: 255, 7: 1}))
    )
    assert (found.task, found.input.label_map) == ("segmentation", {0: 255, 7: 1})
    found = configure(config, None, dict(model_args=dict(depths=[1, 2], directions="one_corner")))
    assert found.model_args == dict(depths=[1, 2], directions="one_corner")


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({}, "data: nothing is given, expected the name of a data set or a folder"),
        (dict(data="digits", epoch=3), "epoch is no setting; did you mean epochs"),
        (dict(data="digits", lr=0.1), r"lr is no setting; did you mean optimizer\.lr\?"),
        (dict(data="digits", optimizer=dict(wd=0.1)), r"optimizer\.wd is no setting"),
        (dict(data="digits", optimizer="sgd"), "optimizer is 'sgd', expected settings by name"),
        (dict(data="digits", epochs="2"), "epochs is '2', expected a whole number$"),
        (dict(data="digits", epochs=0), "epochs is 0, expected at least 1"),
        (dict(data="digits", task="sorting"), "'sorting' is no task"),
        (dict(data="digits", recipe="digit"), "'digit' is no recipe, nearest: digits"),
        (dict(config=ClassificationConfig("digits"), recipe="digits"), "beside a configuration"),
    ],
)
def test_what_cannot_be_used_is_told_in_a_line(changed, message):
    with pytest.raises(ValueError, match=message) as caught:
        v2m.train(**changed)
    assert "\n" not in str(caught.value)
