from dataclasses import replace
from pathlib import Path

import pytest

from tests.recipes.test_recipes import parsed
from v2m.data import AugmentConfig
from v2m.engine.train import resolve
from v2m.recipes import RECIPES
from v2m.studies.catalogue import STUDIES, describe_studies, find_study
from v2m.studies.run import train_arguments
from v2m.studies.study import Study, Variant
from v2m.tasks.classification.config import ClassificationConfig, InputConfig
from v2m.tasks.config import ScheduleConfig


@pytest.mark.parametrize("name", STUDIES)
def test_every_run_is_what_its_command_trains(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # where there are no scenes
    study = STUDIES[name]
    for run in study.runs(Path("runs") / name, "some where", study.seeds[:1]):
        assert vars(parsed(*run.arguments)) == vars(run.config)
        assert resolve(run.config).data == study.base.data
        assert study.variants[run.label].about


@pytest.mark.parametrize("name", STUDIES)
def test_several_seeds_tell_chance(name):
    least = {"scenes-backbones": 1, "scenes-detection": 2, "scenes-segmentation": 2}
    assert len(set(STUDIES[name].seeds)) >= least.get(name, 3)


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


def test_runs_go_seed_by_seed_with_the_overrides_of_their_variant(tmp_path):
    base = ClassificationConfig("digits", epochs=5, model_args=dict(depth=2))
    variants = {"a": Variant("first"), "b": Variant("second", dict(model="v2m_micro", model_args={}))}
    runs = Study("title", base, variants).runs(tmp_path, "data", seeds=(7, 3))
    assert [run.name for run in runs] == ["a-seed7", "b-seed7", "a-seed3", "b-seed3"]
    assert [run.config.model for run in runs] == ["v2m_nano", "v2m_micro"] * 2
    assert runs[3].config == replace(
        base, model="v2m_micro", model_args={}, seed=3, data_dir="data", output=str(tmp_path / "b-seed3")
    )


@pytest.mark.parametrize(
    ("variants", "message"),
    [
        ({"a/b": Variant("x")}, "label is 'a/b', expected letters"),
        ({"a": Variant("x", dict(data="digits"))}, "a overrides data, expected one of model, model_args"),
        ({"a": Variant("x", dict(modle="resnet18"))}, "a overrides modle, expected one of"),
    ],
)
def test_a_wrong_variant_is_named(variants, message):
    with pytest.raises(ValueError, match=f"^Study: {message}"):
        Study("title", ClassificationConfig("digits"), variants)


def test_studies_are_described_by_their_titles():
    for name, study in STUDIES.items():
        assert f"{name} ({study.title})" in describe_studies()


def test_an_unknown_study_is_answered_with_all_of_them():
    assert find_study("digits") is STUDIES["digits"]
    with pytest.raises(ValueError, match=r"^name: 'digit' is no study, there are: digits "):
        find_study("digit")
