"""Feature maps of strides 4 to 32, from our models and timm's."""

import pytest
import timm
import torch

from tests.helpers import assert_close
from tests.scenes import MODEL_ARGS
from v2m.models.pyramid import STRIDES
from v2m.tasks.feature_backbone import FeatureBackbone

PLAIN = dict(embed_dim=16, depth=4, d_state=2, patch_size=4)
MODELS = {
    "v2m_lite_nano": MODEL_ARGS,
    "v2m_hierarchical_small": MODEL_ARGS,
    "v2m_nano": PLAIN,
    "v2m_tiny_patch16_224": dict(embed_dim=16, depth=4, d_state=2),
    "resnet18": {},
    "mambaout_femto": dict(dims=(8, 16, 24, 32), depths=(1, 1, 1, 1)),  # with its channels last
    "swin_tiny_patch4_window7_224": dict(
        embed_dim=8, depths=(1, 1, 1, 1), num_heads=(1, 1, 1, 1), window_size=2, strict_img_size=False
    ),
}
each_model = pytest.mark.parametrize("name", MODELS)


def build(name, **more):
    return FeatureBackbone(name, MODELS[name], (64, 64), **more).eval()


@each_model
def test_maps_have_the_channels_and_strides_that_are_told(name):
    backbone = build(name)
    assert tuple(backbone.strides) == STRIDES
    assert len(backbone.channels) == 4
    for height, width in ((64, 64), (64, 96)):
        maps = backbone(torch.randn(2, 3, height, width))
        expected = [
            (2, channels, height // stride, width // stride)
            for channels, stride in zip(backbone.channels, STRIDES, strict=True)
        ]
        assert [tuple(m.shape) for m in maps] == expected


@pytest.mark.parametrize("name", ["v2m_lite_nano", "v2m_nano", "mambaout_femto"])
def test_the_last_maps_are_those_of_all(name):
    backbone, all_maps = build(name, maps=3), build(name)
    all_maps.load_state_dict(backbone.state_dict(), strict=False)
    backbone.load_state_dict({k: v for k, v in all_maps.state_dict().items() if k in backbone.state_dict()})
    images = torch.randn(1, 3, 64, 64)
    for found, expected in zip(backbone(images), all_maps(images)[1:], strict=True):
        assert_close(found, expected, "float32")
    assert (tuple(backbone.strides), backbone.channels) == (STRIDES[1:], all_maps.channels[1:])


@pytest.mark.parametrize("name", ["mambaout_femto", "swin_tiny_patch4_window7_224"])
def test_channels_that_are_last_are_moved(name):
    backbone, images = build(name), torch.randn(1, 3, 64, 64)
    for found, expected in zip(backbone(images), backbone.model(images), strict=True):
        assert found.equal(expected.permute(0, 3, 1, 2))


def test_a_plain_model_without_a_pyramid_gives_maps_of_its_blocks():
    backbone = build("v2m_nano", pyramid=False)
    assert (backbone.strides, backbone.channels) == ([4] * 4, [16] * 4)
    assert [tuple(m.shape) for m in backbone(torch.randn(1, 3, 64, 64))] == [(1, 16, 16, 16)] * 4


@each_model
def test_layers_rise_from_the_stem_to_the_last_block(name):
    backbone = build(name)
    layers = backbone.layers()
    missing = {key for key, _ in backbone.named_parameters()} - layers.keys()
    assert all(".scales." in key for key in missing)  # a pyramid, which is no layer of the model
    first, *_ = layers.values()
    assert first == 0
    assert set(layers.values()) == set(range(max(layers.values()) + 1))


@each_model
def test_what_takes_no_weight_decay_is_there(name):
    backbone = build(name)
    names = backbone.no_weight_decay()
    assert names <= {key for key, _ in backbone.named_parameters()}
    rates = {key for key in backbone.state_dict() if key.endswith(("_log", ".D", ".D_2", "pos_embed"))}
    assert names == rates
    assert bool(rates) == name.startswith("v2m")


@each_model
def test_weights_of_the_whole_model_give_its_maps(name):
    backbone, images = build(name), torch.randn(1, 3, 64, 64)
    whole = timm.create_model(name, **backbone._whole_args)
    backbone.load(whole.state_dict(), "whole")
    weights = {
        key.removeprefix("model.").removeprefix("model."): v for key, v in backbone.state_dict().items()
    }
    own = whole.state_dict()
    assert all(weights[key].equal(own[key]) for key in weights.keys() & own.keys())
    if name in ("v2m_lite_nano", "v2m_hierarchical_small"):
        expected = whole.eval().forward_intermediates(images, intermediates_only=True)
        for found, value in zip(backbone(images), expected, strict=True):
            assert_close(found, value, "float32")


def test_weights_that_do_not_fit_are_named():
    backbone = build("v2m_lite_nano")
    state = backbone.state_dict()
    name = next(key for key in state if key.endswith("A_log"))
    with pytest.raises(ValueError, match=rf"^pretrained: here has nothing for {name}, expected \["):
        backbone.load({key: value for key, value in state.items() if key != name}, "here")
    with pytest.raises(ValueError, match=rf"^pretrained: here has \[1, 2\] for {name}, expected \["):
        backbone.load(state | {name: torch.zeros(1, 2)}, "here")


@pytest.mark.parametrize("name", ["v2m_lite_nano", "v2m_nano", "resnet18", "swin_tiny_patch4_window7_224"])
def test_checkpoints_of_blocks_change_no_gradient(name):
    images, gradients = torch.randn(2, 3, 64, 64), []
    backbone = build(name)
    for is_checkpointed in (False, True):
        backbone.set_grad_checkpointing(is_checkpointed)
        backbone.train().zero_grad()
        torch.manual_seed(0)
        sum(m.square().mean() for m in backbone(images)).backward()
        gradients.append(
            [parameter.grad for parameter in backbone.parameters() if parameter.grad is not None]
        )
    assert any(getattr(module, "grad_checkpointing", False) for module in backbone.modules())
    for plain, again in zip(*gradients, strict=True):
        assert_close(again, plain, "float32 gradient")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("v2m_lite_nano", dict(embed_dims=8)), r"^model_args: .*embed_dims"),
        (("v2m_nano", dict(PLAIN, deep=8)), r"^model_args: .*deep"),
        (("vit_tiny_patch16_224", {}), r"^model: vit_tiny_patch16_224 has feature maps of strides 16, "),
        (("levit_128", {}), r"^model: levit_128 has "),
    ],
    ids=str,
)
def test_models_without_such_maps_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message) as raised:
        FeatureBackbone(*arguments, (64, 64))
    assert "\n" not in str(raised.value)


def test_weights_that_timm_does_not_have_are_refused():
    with pytest.raises(
        ValueError, match=r"^pretrained: timm has no weights of v2m_lite_nano, expected a run"
    ):
        build("v2m_lite_nano", is_pretrained=True)
