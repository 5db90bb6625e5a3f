import re
from functools import partial

import pytest
import torch

import v2m
from tests.helpers import assert_close
from v2m.layers import (
    AttentionMixer,
    Directions,
    ExactMixer,
    LightMixer,
    RasterMixer,
    SharedConvMixer,
    V2MMixer,
)
from v2m.models import HierarchicalV2M, HierarchicalV2MConfig

small = partial(HierarchicalV2M, embed_dim=(8, 16, 24, 32), depths=(1, 1, 2, 1), num_classes=5)


def images(height=40, width=70, batch=2, channels=3):
    return torch.randn(batch, channels, height, width)


def mixers(model):
    return [block.mixer for stage in model.stages for block in stage if hasattr(block, "mixer")]


def test_the_papers_block():
    """No gate, a norm on the scan's output, N = 1, parameters by axis, a depthwise 3x3 convolution."""
    for mixer in mixers(small()):
        assert isinstance(mixer, SharedConvMixer)
        assert not mixer.use_gate
        assert isinstance(mixer.norm, torch.nn.LayerNorm)
        assert len(mixer.scans) == 2
        assert mixer.scans[0].A_log.shape == (mixer.dim, 1)
        assert mixer.conv2d.weight.shape == (mixer.dim, 1, 3, 3)


@pytest.mark.parametrize(
    ("mixer", "kind"),
    [
        ("v2m", V2MMixer),
        ("exact", ExactMixer),
        ("raster", RasterMixer),
        ("light", LightMixer),
        ("attention", AttentionMixer),
    ],
)
def test_other_mixers(mixer, kind):
    model = small(mixer=mixer, embed_dim=(32, 32, 64, 64))
    assert all(isinstance(m, kind) for m in mixers(model))
    assert model(images()).shape == (2, 5)


@pytest.mark.parametrize("stages", [0, 1, 4])
def test_attention_in_the_last_stages(stages):
    model = small(attention_stages=stages)
    kinds = [isinstance(block.mixer, AttentionMixer) for stage in model.stages for block in stage[-1:]]
    assert kinds == [False] * (4 - stages) + [True] * stages
    assert model(images()).shape == (2, 5)


@pytest.mark.parametrize("sweeps", [None, 0, 2])
def test_sweeps(sweeps):
    model = small(mixer="exact", sweeps=sweeps)
    assert {scan.sweeps for mixer in mixers(model) for scan in mixer.scans} == {sweeps}
    assert model(images(16, 20)).shape == (2, 5)


def test_blocks_with_windows_take_turns():
    model = small(mixer="v2m", window=2)
    assert [mixer.is_first_local for mixer in mixers(model)] == [False, True, False, True, False]
    assert model(images()).shape == (2, 5)


@torch.no_grad()
def test_forward_by_hand():
    model, x = small(num_classes=0).double().eval(), images(33, 50).double()
    y = model.stem(x.permute(0, 2, 3, 1))
    for stage in model.stages:
        for module in stage:
            if hasattr(module, "mixer"):
                y = y + module.mixer(module.norm(y))
                y = y + module.mlp(module.norm2(y))
            else:
                y = module(y)
    assert y.shape == (2, 2, 2, 32)
    assert_close(model(x), model.norm(y).mean((1, 2)), "float64")


def test_pooling():
    model, x = small(), images()
    features = model.forward_features(x)
    for pool, expected in (("avg", features.mean((1, 2))), ("max", features.amax((1, 2))), ("", features)):
        model.reset_classifier(0, pool)
        assert torch.equal(model(x), expected)


def test_drop_path_rates_rise_over_the_blocks():
    model = small(drop_path_rate=0.4)
    blocks = [block for stage in model.stages for block in stage if hasattr(block, "mixer")]
    rates = [getattr(block.drop_path, "drop_prob", 0.0) for block in blocks]
    assert rates == pytest.approx([0.0, 0.1, 0.2, 0.3, 0.4])


def test_meta_device():
    with torch.device("meta"):
        model = small()
    model = model.to_empty(device="cpu")
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(torch.nan)
    model.init_weights()
    assert all(parameter.isfinite().all() for parameter in model.parameters())


def test_set_input_size():
    model = small()
    model.set_input_size((64, 96))
    assert model.config.img_size == (64, 96)


@pytest.mark.parametrize(
    "wrong",
    [
        dict(embed_dim=(8, 16, 24)),
        dict(depths=(1, 0, 1, 1)),
        dict(attention_stages=5),
        dict(mlp_ratio=0),
        dict(in_chans=0),
        dict(drop_path_rate=1.0),
        dict(global_pool="token"),
        dict(img_size=0),
        dict(attention_stages=-1),
    ],
    ids=str,
)
def test_values_out_of_range_are_named(wrong):
    name, value = next(iter(wrong.items()))
    expected = rf"HierarchicalV2MConfig: {name} is {re.escape(repr(value))}, expected"
    with pytest.raises(ValueError, match=expected):
        HierarchicalV2M(**wrong)


def test_released_directions_and_unknown_arguments():
    with pytest.raises(ValueError, match="directions is 'released', which plain models alone have"):
        HierarchicalV2MConfig(directions=Directions.RELEASED)
    with pytest.raises(TypeError, match="HierarchicalV2M: no argument 'depth', the nearest is 'depths'"):
        HierarchicalV2M(depth=3)


def test_lists_from_json():
    assert HierarchicalV2MConfig(depths=[1, 2, 3, 4]).depths == (1, 2, 3, 4)


def test_wrong_images():
    with pytest.raises(
        ValueError, match=r"HierarchicalV2M: input has shape \[2, 1, 40, 70\], expected images"
    ):
        small()(images(channels=1))
    with pytest.raises(TypeError, match=r"input has dtype torch.uint8, expected floating point"):
        small()(torch.zeros(1, 3, 40, 70, dtype=torch.uint8))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(
            (name, value)
            for name in ("embed_dim", "depths")
            for value in (0, 1.5, "four", (8, 8, 8), (8, 8, 8, True))
        ),
        *(("mlp_ratio", value) for value in (0, -1, "x", [1], float("nan"), float("inf"))),
        *(("img_size", value) for value in (0, 1.5, True, 2**70)),
    ],
)
def test_arguments_that_are_no_sizes(name, value):
    with pytest.raises(ValueError, match=rf"^HierarchicalV2MConfig: {name} is [^\n]*, expected [^\n]*$"):
        v2m.create_model("v2m_lite_nano", **{name: value})
