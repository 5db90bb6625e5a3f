import io
from contextlib import suppress
from dataclasses import replace

import pytest
from rich.console import Console

from tests.engine.test_train import SMALL, StopError, stop_after
from tests.recipes.test_recipes import parsed
from v2m.data import AugmentConfig
from v2m.engine.resolve import resolve
from v2m.engine.train import train
from v2m.recipes import RECIPES
from v2m.studies.run import train_arguments
from v2m.studies.study import Study, Variant
from v2m.tasks.classification.config import ClassificationConfig, InputConfig
from v2m.tasks.config import OptimizerConfig, ScheduleConfig


def tiny_study(data, epochs=2):
    """Two variants of a very small model."""
    wide = SMALL["model_args"] | dict(embed_dim=24)
    return Study(
        title="Widths",
        base=ClassificationConfig(str(data), epochs=epochs, augment=AugmentConfig(scale=(0.5, 1.0)), **SMALL),
        variants={
            "narrow": Variant("16 channels"),
            "wide": Variant("24 channels", dict(model_args=wide, epochs=epochs + 1)),
        },
        seeds=(0, 1),
    )


def train_here(run, epochs=None):
    """Train a run in this process, until it is stopped after some epochs."""
    with suppress(StopError):
        train(run.config, Console(file=io.StringIO()), on_epoch=stop_after(epochs))


def epochs(run):
    return [row["epoch"] for row in run.folder.read_metrics()]


def test_a_run_with_other_settings_is_named(image_folder, tmp_path, monkeypatch):
    (run,) = tiny_study(image_folder).runs(tmp_path / "study", str(tmp_path), seeds=(0,))[:1]
    run.check()
    train_here(run, epochs=1)
    run.check()
    monkeypatch.chdir(image_folder.parent)
    replace(run, config=replace(run.config, data=image_folder.name, workers=1, data_dir="elsewhere")).check()
    for change, words in (
        (dict(epochs=7), "epochs 2, the study has 7"),
        (dict(optimizer=OptimizerConfig(lr=1e-5)), "optimizer.lr 0.004, the study has 1e-05"),
        (dict(model_args={}), "the study has {}"),
        (dict(augment=AugmentConfig(scale=(0.5, 0.75))), r"augment.scale \[0.5, 1.0\], the study has"),
    ):
        with pytest.raises(ValueError, match=f"^output: .*narrow-seed0 was trained with .*{words}"):
            replace(run, config=replace(run.config, **change)).check()
    with pytest.raises(ValueError, match="'v2m_nanno' is no model"):
        replace(run, config=replace(run.config, model="v2m_nanno")).check()


@pytest.mark.parametrize("text", ['{"epoch": 1}', '{"epoch": 1, "seconds": "x"}', "[1]", "[" * 100_000])
def test_damaged_metrics_are_named(image_folder, tmp_path, text):
    (run,) = tiny_study(image_folder).runs(tmp_path / "study", str(tmp_path), seeds=(0,))[:1]
    run.folder.create()
    run.folder.write_config(resolve(run.config))
    run.folder.metrics.write_text(text)
    with pytest.raises(ValueError, match=r"metrics.jsonl is damaged in line 1.*--resume"):
        run.check()


def test_a_command_holds_what_differs_from_the_recipe():
    recipe = RECIPES["fashion-mnist"].config
    assert train_arguments(recipe) == ["--data", "fashion-mnist"]
    config = replace(
        recipe,
        model="v2m_nano",
        model_args=dict(directions="corners", rate=1e-6, pair=(1, 2)),
        seed=3,
        output="a folder/it's",
        input=InputConfig(img_size=(8, 12), mean=(0.5,)),
        augment=AugmentConfig(hflip=None),
        schedule=ScheduleConfig(warmup_lr=1e-7),
    )
    again = parsed(*train_arguments(config))
    assert vars(again) == vars(replace(config, model_args=config.model_args | dict(pair=[1, 2])))
