"""Settings belong to their mixer, in both families."""

import math
from dataclasses import replace

import pytest
import timm
import torch
import torch.nn.functional as F
from timm.models import save_for_hf

import v2m
from tests.helpers import assert_close
from v2m.layers import MIXERS, Decay, Directions
from v2m.models import V2MConfig
from v2m.models.config import HIERARCHICAL, PLAIN
from v2m.models.mixers import build_mixer

PAIRS = [(name, mixer) for name in v2m.list_models() for mixer in MIXERS]


@pytest.mark.parametrize(("name", "mixer"), PAIRS)
def test_another_mixer_is_all_that_has_to_be_said(name, mixer):
    with torch.device("meta"):
        model = v2m.create_model(name, mixer=mixer)
    kinds = {type(module) for module in model.modules() if type(module) in MIXERS.values()}
    assert kinds == {MIXERS[mixer]}
    own = MIXERS[mixer].settings()
    for setting in ("d_state", "d_conv", "expand", "dt_rank", "directions", "single_gate"):
        assert (getattr(model.config, setting) is not None) == (setting in own), setting


@pytest.mark.parametrize(("name", "mixer"), PAIRS)
def test_init_weights_sets_all_of_a_model_that_was_built_on_the_meta_device(name, mixer):
    shallow = dict(depth=2) if name in PLAIN else dict(depths=(1, 1, 1, 1))
    with torch.device("meta"):
        model = v2m.create_model(name, mixer=mixer, num_classes=3, **shallow)
    model.to_empty(device="cpu")
    tensors = dict(model.named_parameters()) | dict(model.named_buffers())
    for tensor in tensors.values():
        tensor.data.fill_(math.nan if tensor.is_floating_point() else -1)
    model.init_weights()
    for key, tensor in tensors.items():
        assert tensor.isfinite().all(), key
        assert tensor.is_floating_point() or (tensor >= 0).all(), key
        if ".dt_proj" in key and key.endswith(".bias"):
            steps = F.softplus(tensor.detach())
            assert 0.999e-3 < steps.min() < steps.max() < 0.1001, key


@pytest.mark.parametrize(
    ("name", "given", "expected"),
    [
        ("v2m_micro", dict(mixer="raster"), dict(d_state=8, expand=1, d_conv=4, directions=None)),
        ("v2m_micro", dict(mixer="conv"), dict(d_state=8, directions=Directions.CORNERS_ROWS_FIRST)),
        ("v2m_micro", dict(mixer="attention"), dict(d_state=None, expand=None, decay=None)),
        ("v2m_micro", dict(mixer="exact"), dict(decay=Decay.FREE)),
        ("v2m_micro", dict(mixer="light", d_state=5), dict(d_state=5, expand=1)),
        ("v2m_tiny_local", dict(mixer="exact"), dict(window=None, sweeps=None, d_state=16)),
        ("v2m_tiny_local", dict(window=None), dict(window=None, mixer="v2m")),
        ("v2m_lite_nano", dict(mixer="conv"), dict(d_state=16, expand=1)),
        ("v2m_hierarchical_base", dict(mixer="v2m"), dict(d_state=1, expand=2, d_conv=4)),
    ],
)
def test_what_a_variant_says_is_kept_as_far_as_the_mixer_has_it(name, given, expected):
    config = (PLAIN | HIERARCHICAL)[name].with_arguments(given)
    assert {key: getattr(config, key) for key in expected} == expected


@pytest.mark.parametrize(
    ("name", "given", "message"),
    [
        ("v2m_micro", dict(mixer="raster", directions="one_corner"), "needs mixer 'v2m', 'conv' or 'exact'"),
        ("v2m_lite_nano", dict(window=7), "window is 7, which needs mixer 'v2m', not 'light'"),
        ("v2m_nano", dict(decay="fast"), "decay is 'fast', expected one of 'free', 'geometric'"),
        (
            "v2m_lite_nano",
            dict(decay="geometric"),
            "decay is 'geometric', which needs mixer 'v2m', 'conv', 'exact' or 'raster', not 'light'",
        ),
        ("v2m_nano", dict(sweeps=2), "sweeps is 2, which needs mixer 'exact', not 'v2m'"),
        (
            "v2m_nano",
            dict(mixer="attention", expand=2),
            "expand is 2, which needs mixer 'v2m', 'conv', 'exact'",
        ),
        ("v2m_nano", dict(sweep=2), "no argument 'sweep', the nearest is 'sweeps'"),
        (
            "v2m_hierarchical_small",
            dict(single_gate=True),
            "single_gate is True, expected False with use_gate",
        ),
        ("v2m_hierarchical_small", dict(mixer="v2m", directions="released"), "which plain models alone have"),
        ("v2m_nano", dict(mixer="ssm"), "mixer is 'ssm', expected one of 'v2m', 'conv', 'exact'"),
        (
            "v2m_nano",
            dict(mixer="exact", sweeps="three"),
            "sweeps is 'three', expected an integer from 0 or None",
        ),
        ("v2m_nano", dict(dt_rank="aut"), "dt_rank is 'aut', expected a positive integer or 'auto'"),
        ("v2m_nano", dict(window="7"), "window is '7', expected a positive integer or None"),
        (
            "v2m_nano",
            dict(window=7, directions="one_corner"),
            "'corners', .* and 'opposite_corners' go with windows",
        ),
        (
            "v2m_hierarchical_small",
            dict(single_gate=True),
            "as hierarchical models have it: there is no gate",
        ),
        (
            "v2m_nano",
            dict(mixer="light", head_dim=8),
            "no argument 'head_dim': it is of the mixers' classes alone",
        ),
    ],
)
def test_what_the_user_says_has_to_fit(name, given, message):
    with pytest.raises((TypeError, ValueError), match=message) as error:
        v2m.create_model(name, **given)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["v2m_nano", "v2m_tiny_local", "v2m_hierarchical_small"])
@pytest.mark.parametrize("mixer", [name for name, kind in MIXERS.items() if "decay" in kind.settings()])
def test_geometric_rates_start_as_the_function_of_free_ones(name, mixer):
    small = dict(embed_dim=8, depth=2) if name in PLAIN else dict(embed_dim=(8,) * 4, depths=(1,) * 4)
    small |= dict(mixer=mixer, d_state=3, num_classes=3, img_size=(32, 48))
    torch.set_default_dtype(torch.float64)  # float32 would round free rates first
    try:
        models, random = [], []
        for decay in Decay:
            torch.manual_seed(0)
            models.append(timm.create_model(name, decay=decay.value, **small).eval())
            random.append(torch.rand(1))
        x = torch.randn(2, 3, 32, 48)
    finally:
        torch.set_default_dtype(torch.float32)
    free, geometric = models
    assert torch.equal(*random)
    expected = free.state_dict()
    assert geometric.state_dict().keys() == expected.keys()
    for key, value in geometric.state_dict().items():
        if key.endswith("_log"):
            assert torch.equal(value, torch.zeros(len(expected[key]), dtype=torch.float64)), key
        else:
            assert torch.equal(value, expected[key]), key
    assert_close(geometric(x), free(x), "float64")
    assert geometric.no_weight_decay() == free.no_weight_decay()


def test_a_configuration_is_complete():
    config = V2MConfig(mixer="light")
    assert (config.d_state, config.expand, config.dt_rank, config.directions) == (16, 2, None, None)
    assert V2MConfig() == V2MConfig(
        d_state=16, d_conv=4, expand=2, dt_rank="auto", decay="free", directions="corners"
    )


def test_the_mixer_of_a_block():
    config = V2MConfig(window=3, d_state=2)
    assert [build_mixer(config, 8, i).is_first_local for i in (0, 1)] == [False, True]
    assert type(build_mixer(config, 8, 1, use_attention=True)) is MIXERS["attention"]


@pytest.mark.parametrize("name", ["v2m_micro", "v2m_lite_nano"])
@pytest.mark.parametrize("mixer", MIXERS)
def test_saved_and_loaded(name, mixer, tmp_path):
    shape = dict(depth=1) if name in PLAIN else dict(depths=(1, 1, 1, 1))
    model, x = v2m.create_model(name, mixer=mixer, num_classes=3, **shape).eval(), torch.randn(2, 3, 32, 32)
    save_for_hf(model, tmp_path, safe_serialization=True)
    again = timm.create_model(f"local-dir:{tmp_path}", pretrained=True).eval()
    assert again.config == replace(model.config, global_pool="avg")
    assert torch.equal(again(x), model(x))
