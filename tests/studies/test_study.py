from dataclasses import replace

import pytest

from v2m.studies.study import Study, Variant
from v2m.tasks.classification.config import ClassificationConfig


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
