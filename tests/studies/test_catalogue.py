from pathlib import Path

import pytest

from tests.recipes.test_recipes import parsed
from v2m.engine.train import resolve
from v2m.studies.catalogue import STUDIES, describe_studies, find_study


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


def test_studies_are_described_by_their_titles():
    for name, study in STUDIES.items():
        assert f"{name} ({study.title})" in describe_studies()


def test_an_unknown_study_is_answered_with_all_of_them():
    assert find_study("digits") is STUDIES["digits"]
    with pytest.raises(ValueError, match=r"^name: 'digit' is no study, there are: digits "):
        find_study("digit")
