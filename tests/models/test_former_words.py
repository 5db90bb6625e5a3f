import re

import pytest
import torch
from timm.models import save_for_hf

import v2m
from v2m.models import V2M, HierarchicalV2M
from v2m.models.former_words import are_of_conv, needs_weights, todays_words

SMALL = dict(img_size=8, embed_dim=8, depth=2, num_classes=3)
STAGES = dict(embed_dim=(8, 8, 8, 8), depths=(1, 1, 1, 1), num_classes=3)


@pytest.mark.parametrize(
    ("before", "now"),
    [
        ({}, {}),
        (dict(depth=3, mixer="raster"), dict(depth=3, mixer="raster")),
        (dict(recurrence="exact"), dict(mixer="exact")),
        (dict(recurrence="exact", iterations=3), dict(mixer="exact")),
        (dict(recurrence="iterative", iterations=3), dict(mixer="exact", sweeps=3)),
        (dict(recurrence="iterative"), dict(mixer="exact", sweeps=2)),
        (dict(mixer="v2m", recurrence="exact", conv2d=True), dict(mixer="exact")),
        (dict(conv2d=True), dict(mixer="conv")),
        (dict(conv2d=True, single_gate=True), dict(mixer="conv", single_gate=True)),
        (dict(conv2d=False, iterations=4, recurrence="separable"), {}),
        (dict(mixer="raster", conv2d=False, recurrence="separable"), dict(mixer="raster")),
        (dict(mixer="v2m", conv2d=False), dict(mixer="v2m")),
        # Taken before, and without effect.
        (dict(recurrence="exact", single_gate=True, d_conv=3), dict(mixer="exact")),
        (dict(conv2d=True, d_conv=3), dict(mixer="conv")),
        (dict(mixer="raster", directions="corners", window=None), dict(mixer="raster")),
        (dict(mixer="light", single_gate=False), dict(mixer="light")),
        # Today's words beside those of a saved model win.
        (dict(recurrence="iterative", iterations=3, mixer="exact", sweeps=3), dict(mixer="exact", sweeps=3)),
        (dict(conv2d=True, mixer="conv"), dict(mixer="conv")),
    ],
)
@pytest.mark.parametrize("model", ["v2m_nano", "v2m_micro.untrained"])
def test_words_of_plain_models(model, before, now):
    given = dict(before)
    assert todays_words(model, given) == now
    assert given == before
    assert todays_words(model, now) == now


@pytest.mark.parametrize(
    ("before", "now"),
    [
        (dict(recurrence="iterative", iterations=0), dict(mixer="exact", sweeps=0)),
        (dict(mixer="v2m", recurrence="separable"), dict(mixer="conv")),
        (dict(recurrence="separable"), {}),
        (dict(mixer="v2m"), dict(mixer="v2m")),
    ],
)
def test_words_of_models_with_stages(before, now):
    assert todays_words("v2m_hierarchical_small", before) == now


def test_light_models_were_light_where_nothing_said_otherwise():
    assert todays_words("v2m_lite_nano", dict(directions="corners", single_gate=False)) == {}
    assert todays_words("v2m_lite_nano", dict(mixer="v2m", recurrence="exact")) == dict(mixer="exact")
    with pytest.raises(TypeError, match="no argument 'recurrence'"):
        v2m.create_model("v2m_lite_nano", recurrence="exact")


@pytest.mark.parametrize(
    "wrong",
    [
        dict(recurrence="both"),
        dict(recurrence=["exact"]),
        dict(mixer="raster", recurrence="exact"),
        dict(mixer="light", conv2d=True),
        dict(mixer="raster", directions="one_corner"),
    ],
)
def test_what_was_never_right_stays_and_is_refused(wrong):
    assert todays_words("v2m_nano", wrong) == wrong
    with pytest.raises((TypeError, ValueError), match="V2M") as error:
        v2m.create_model("v2m_nano", **wrong)
    assert "\n" not in str(error.value)


def test_models_of_others_are_not_touched():
    assert todays_words("resnet18", dict(conv2d=True)) == dict(conv2d=True)


@pytest.mark.parametrize(
    ("before", "hint"),
    [
        (dict(recurrence="exact"), "'recurrence', it is mixer='exact', with sweeps=k where"),
        (dict(iterations=3), "'iterations', it is sweeps, of mixer='exact' now"),
        (dict(conv2d=True), "'conv2d', it is mixer='conv' now"),
    ],
)
@pytest.mark.parametrize("kind", [V2M, HierarchicalV2M])
def test_python_is_told_the_new_word(kind, before, hint):
    with pytest.raises(TypeError, match=re.escape(f"{kind.__name__}: no argument {hint}")):
        kind(**before)


@pytest.mark.parametrize(
    ("before", "now"),
    [
        (dict(recurrence="exact"), dict(mixer="exact")),
        (dict(recurrence="iterative", iterations=1), dict(mixer="exact", sweeps=1)),
        (dict(conv2d=True), dict(mixer="conv")),
        (dict(mixer="raster", directions="corners"), dict(mixer="raster")),
    ],
)
def test_timm_takes_both_words(before, now, tmp_path):
    x, outputs = torch.randn(2, 3, 8, 8), []
    for words in (before, now):
        torch.manual_seed(0)
        outputs.append(v2m.create_model("v2m_nano", **SMALL, **words).eval()(x))
    assert torch.equal(*outputs)
    save_for_hf(v2m.create_model("v2m_nano", **SMALL, **before).eval(), tmp_path, safe_serialization=True)
    again = v2m.create_model(f"local-dir:{tmp_path}", pretrained=True)
    assert again.config.mixer == now["mixer"]


def test_in_stages_v2m_has_two_meanings_that_weights_tell_apart(tmp_path):
    assert needs_weights("v2m_hierarchical_small", dict(mixer="v2m"))
    assert not needs_weights("v2m_hierarchical_small", dict(mixer="conv"))
    assert not needs_weights("v2m_nano", dict(mixer="v2m"))
    conv = v2m.create_model("v2m_hierarchical_small", mixer="conv", **STAGES)
    assert are_of_conv(conv.state_dict())
    for mixer in ("v2m", "exact", "raster", "light", "attention"):
        assert not are_of_conv(HierarchicalV2M(mixer=mixer, **STAGES).state_dict()), mixer
    save_for_hf(conv, tmp_path, safe_serialization=True)
    with pytest.raises(ValueError, match=r"weights are of the mixer 'conv', .*; give mixer='conv'") as error:
        v2m.create_model(f"local-dir:{tmp_path}", pretrained=True, mixer="v2m")
    assert "\n" not in str(error.value)
