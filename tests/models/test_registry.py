import inspect
import itertools
import json
import math
from dataclasses import fields

import pytest
import timm
import torch
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD, resolve_model_data_config
from timm.layers import to_2tuple
from timm.optim import create_optimizer_v2

import v2m
from tests.helpers import assert_close
from v2m.layers import Directions
from v2m.models import SimpleFeaturePyramid, V2MConfig
from v2m.models.config import HIERARCHICAL, PLAIN

NAMES = v2m.list_models()
PATCH = {name: max(to_2tuple(config.patch_size)) for name, config in PLAIN.items()} | dict.fromkeys(
    HIERARCHICAL, 32
)
SMALL = ("v2m_nano", "v2m_micro")
every_model = pytest.mark.parametrize("name", NAMES)
every_plain_model = pytest.mark.parametrize("name", PLAIN)
every_hierarchical_model = pytest.mark.parametrize("name", HIERARCHICAL)


def create(name, **settings):
    """A shallow (and narrow) model for images of 2 x 3 patches, or cells of stride 32."""
    patch = PATCH[name]
    shallow = dict(depth=2) if name in PLAIN else dict(depths=(1, 2, 1, 1), embed_dim=(32, 32, 64, 64))
    return timm.create_model(name, **{"img_size": (2 * patch, 3 * patch)} | shallow | settings)


def images(name="v2m_nano", height=2.0, width=3.0, batch=2, channels=3):
    """Images of a height and a width in patches of a model."""
    height, width = (math.ceil(size * PATCH[name]) for size in (height, width))
    return torch.randn(batch, channels, height, width)


def test_names():
    assert NAMES == [
        "v2m_nano",
        "v2m_micro",
        "v2m_tiny_patch16_224",
        "v2m_tiny_local",
        "v2m_small_patch16_224",
        "v2m_small_local",
        "v2m_lite_nano",
        "v2m_lite_tiny",
        "v2m_lite_small",
        "v2m_hierarchical_small",
        "v2m_hierarchical_base",
    ]
    assert set(timm.list_models("v2m*")) == set(NAMES)
    assert inspect.signature(v2m.create_model) == inspect.signature(timm.create_model)


@pytest.mark.parametrize(
    ("name", "parameters", "papers"),
    [
        ("v2m_tiny_patch16_224", 6_852_712, 7e6),
        ("v2m_tiny_local", 8_013_928, 8e6),
        ("v2m_small_patch16_224", 25_205_992, 26e6),
        ("v2m_small_local", 28_413_160, 28e6),
        ("v2m_hierarchical_small", 30_233_512, 30e6),
        ("v2m_hierarchical_base", 50_100_520, 50e6),
    ],
)
def test_parameter_counts_are_the_papers(name, parameters, papers):
    with torch.device("meta"):
        model = timm.create_model(name)
    assert sum(p.numel() for p in model.parameters()) == parameters
    assert parameters == pytest.approx(papers, rel=0.035)


@every_model
def test_light_models_are_smaller_than_deit_tiny(name):
    if "lite" not in name:
        pytest.skip("no light model")
    with torch.device("meta"):
        model, other = timm.create_model(name), timm.create_model("deit_tiny_patch16_224")
    assert sum(p.numel() for p in model.parameters()) <= sum(p.numel() for p in other.parameters())


@every_model
@pytest.mark.parametrize("size", [(2, 3), (3, 2), (2.1, 1.4)])
def test_forward_and_every_gradient(name, size):
    model = create(name, num_classes=7)
    logits = model(images(name, *size))
    assert logits.shape == (2, 7)
    logits.square().sum().backward()
    for key, parameter in model.named_parameters():
        assert parameter.grad is not None, key
        assert parameter.grad.isfinite().all(), key
        assert parameter.grad.any(), key


@every_plain_model
@pytest.mark.parametrize("size", [(2, 3), (2.1, 1.4)])
def test_features_only(name, size):
    model = create(name, features_only=True, out_indices=(0, 1), class_token="middle")
    features = model(images(name, *size))
    reductions, channels = model.feature_info.reduction(), model.feature_info.channels()
    assert len(features) == len(reductions) == 2
    for feature, width in zip(features, channels, strict=True):
        assert feature.shape == (2, width, math.ceil(size[0]), math.ceil(size[1]))
    full = create(name)
    assert set(channels) == {full.embed_dim}
    assert set(reductions) == {PATCH[name]}


@every_plain_model
def test_features_only_takes_as_many_of_the_last_three_blocks_as_there_are(name):
    assert len(create(name, depth=2, features_only=True).feature_info) == 2
    model = create(name, depth=4, features_only=True)
    assert model.feature_info.module_name() == ["blocks.1", "blocks.2", "blocks.3"]
    assert [tuple(feature.shape[:2]) for feature in model(images(name))] == [(2, model.model.embed_dim)] * 3


@every_plain_model
def test_features_only_drops_what_it_does_not_need(name):
    model = create(name, depth=3, features_only=True, out_indices=(0,)).model
    assert len(model.blocks) == 1
    assert isinstance(model.norm, torch.nn.Identity)
    assert isinstance(model.head, torch.nn.Identity)


@every_hierarchical_model
@pytest.mark.parametrize("size", [(2, 3), (2.1, 1.4)])
def test_features_of_four_strides(name, size):
    model = create(name, features_only=True)
    features = model(x := images(name, *size))
    assert model.feature_info.reduction() == [4, 8, 16, 32]
    assert model.feature_info.channels() == [32, 32, 64, 64]
    for feature, width, stride in zip(features, (32, 32, 64, 64), (4, 8, 16, 32), strict=True):
        assert feature.shape == (2, width, math.ceil(x.shape[2] / stride), math.ceil(x.shape[3] / stride))


@every_hierarchical_model
def test_features_of_chosen_stages(name):
    model = create(name, features_only=True, out_indices=(0, 2))
    assert model.feature_info.reduction() == [4, 16]
    assert len(model.model.stages) == 3
    assert isinstance(model.model.norm, torch.nn.Identity)
    assert len(model(images(name))) == 2


@every_plain_model
@pytest.mark.parametrize("size", [(2, 3), (2.1, 1.4)])
def test_plain_models_have_a_pyramid_of_four_strides(name, size):
    factor = 32 // PATCH[name]
    model = create(name, features_only=True, feature_cls=SimpleFeaturePyramid, class_token="edge")
    features = model(x := images(name, factor * size[0], factor * size[1]))
    assert model.feature_info.reduction() == [4, 8, 16, 32]
    assert [feature.shape[1] for feature in features] == model.feature_info.channels()
    patch = PATCH[name]
    for feature, stride in zip(features, (4, 8, 16, 32), strict=True):
        whole = [math.ceil(side / patch) * patch for side in x.shape[2:]]
        assert list(feature.shape[2:]) == [math.ceil(side / stride) for side in whole]
    sum(feature.square().sum() for feature in features).backward()
    for key, parameter in model.named_parameters():
        assert parameter.grad is not None, key
        assert parameter.grad.isfinite().all(), key


@every_model
def test_forward_is_features_then_head(name):
    model, x = create(name), images(name)
    features = model.forward_features(x)
    assert features.shape == (2, 2, 3, model.num_features)
    pooled = model.forward_head(features, pre_logits=True)
    assert pooled.shape == (2, model.head_hidden_size)
    assert torch.equal(model.forward_head(features), model.head(pooled))
    assert torch.equal(model(x), model.forward_head(features))


@pytest.mark.parametrize(
    ("indices", "taken"), [(None, [0, 1, 2, 3]), (2, [2, 3]), ([0, -2], [0, 2]), ((3,), [3])]
)
def test_forward_intermediates_indices(indices, taken):
    model, x = create("v2m_nano", depth=4), images()
    tokens, maps = model.forward_intermediates(x, indices=indices)
    every = model.forward_intermediates(x, intermediates_only=True)
    assert torch.equal(tokens, model.forward_features(x))
    assert len(every) == 4
    assert len(maps) == len(taken)
    assert all(torch.equal(m, every[i]) for m, i in zip(maps, taken, strict=True))


@pytest.mark.parametrize("class_token", [None, "middle"])
def test_forward_intermediates_options(class_token):
    model, x = create("v2m_nano", depth=3, class_token=class_token), images()
    (nchw,) = model.forward_intermediates(x, indices=[1], intermediates_only=True)
    assert nchw.shape == (2, 64, 2, 3)
    assert nchw.is_contiguous()
    (nhwc,) = model.forward_intermediates(x, indices=[1], intermediates_only=True, output_fmt="NHWC")
    assert torch.equal(nhwc.permute(0, 3, 1, 2), nchw)
    (normed,) = model.forward_intermediates(x, [1], intermediates_only=True, norm=True, output_fmt="NHWC")
    assert_close(normed, model.norm(nhwc), "float32")


@pytest.mark.parametrize(("stop_early", "blocks_run"), [(False, 3), (True, 1)])
def test_forward_intermediates_stops_early(stop_early, blocks_run):
    model, runs = create("v2m_nano", depth=3), []
    for block in model.blocks:
        block.register_forward_hook(lambda *args: runs.append(args[0]))
    tokens, maps = model.forward_intermediates(images(), [0], stop_early=stop_early, output_fmt="NHWC")
    assert runs == list(model.blocks)[:blocks_run]
    assert torch.equal(tokens, model.norm(maps[0])) == stop_early


def test_forward_intermediates_refuses_other_formats_and_indices():
    model, x = create("v2m_nano"), images()
    with pytest.raises(ValueError, match="output_fmt is 'NLC', expected 'NCHW' or 'NHWC'"):
        model.forward_intermediates(x, output_fmt="NLC")
    with pytest.raises(AssertionError, match="out of range"):
        model.forward_intermediates(x, indices=[2])


@every_model
def test_reset_classifier(name):
    model, x = create(name, num_classes=3), images(name)
    assert model.get_classifier() is model.head
    pooled = model.forward_head(model.forward_features(x), pre_logits=True)
    model.reset_classifier(4)
    assert (model.num_classes, model(x).shape) == (4, (2, 4))
    model.reset_classifier(0)
    assert torch.equal(model(x), pooled)
    model.reset_classifier(0, "")
    assert torch.equal(model(x), model.forward_features(x))
    model.reset_classifier(6, "max")
    assert (model.global_pool, model(x).shape) == ("max", (2, 6))
    with pytest.raises(ValueError, match="global_pool is 'mean'"):
        model.reset_classifier(6, "mean")
    with pytest.raises(ValueError, match="global_pool is 'token'"):
        model.reset_classifier(6, "token")


def test_reset_classifier_keeps_dtype():
    model = create("v2m_nano").bfloat16()
    model.reset_classifier(3)
    assert model(images().bfloat16()).dtype == torch.bfloat16


def parameter_groups(model, **options):
    """Name of every parameter, to the options of its group in the optimizer."""
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    groups = create_optimizer_v2(model, opt="adamw", lr=1e-3, **options).param_groups
    return {names[id(parameter)]: group for group in groups for parameter in group["params"]}


@every_plain_model
def test_weight_decay(name):
    model = create(name, class_token="edge")
    groups = parameter_groups(model, weight_decay=0.05)
    assert groups.keys() == dict(model.named_parameters()).keys()
    decayed = {key for key, group in groups.items() if group["weight_decay"] > 0}
    layers = ("in_proj", "conv1d", "x_proj", "dt_proj", "conv1d_2", "x_proj_2", "dt_proj_2", "out_proj")
    places = ("mixer", "mixer.local") if PLAIN[name].window else ("mixer",)
    expected = {
        key
        for i, place, layer in itertools.product(range(2), places, layers)
        if (key := f"blocks.{i}.{place}.{layer}.weight") in groups
    }
    stem = (k for k, module in model.patch_embed.named_modules() if isinstance(module, torch.nn.Conv2d))
    assert decayed == expected | {f"patch_embed.{key}.weight" for key in stem} | {"head.weight"}


def test_layer_wise_learning_rates():
    """From the head at full rate down to the stem; the last norm goes with the last block."""
    model = create("v2m_nano", class_token="edge")
    groups = parameter_groups(model, weight_decay=0.05, layer_decay=0.75)
    assert groups.keys() == dict(model.named_parameters()).keys()
    for key, group in groups.items():
        levels = {"blocks.0": 1, "blocks.1": 2, "norm": 2, "head": 3}
        level = next((level for start, level in levels.items() if key.startswith(start)), 0)
        assert group["lr_scale"] == pytest.approx(0.75 ** (3 - level)), key


@every_hierarchical_model
def test_weight_decay_of_hierarchical_models(name):
    """Matrices and kernels decay; nothing else does."""
    model = create(name)
    groups = parameter_groups(model, weight_decay=0.05)
    for key, parameter in model.named_parameters():
        is_matrix = parameter.ndim > 1 and not key.endswith(("A_log", "A_2_log"))
        assert (groups[key]["weight_decay"] > 0) == is_matrix, key


@every_hierarchical_model
def test_layer_wise_learning_rates_of_hierarchical_models(name):
    groups = parameter_groups(create(name), layer_decay=0.75)
    order = ["stem.0.conv", "stages.0.0.mlp.fc1", "stages.1.0.conv", "stages.1.2.mlp.fc1", "stages.2.0.conv"]
    scales = [groups[f"{key}.weight"]["lr_scale"] for key in (*order, "head")]
    assert scales == sorted(set(scales))
    assert scales[-1] == 1
    assert groups["stem.0.conv.weight"]["lr_scale"] == groups["stem.1.norm.weight"]["lr_scale"]


@every_model
def test_default_cfg(name):
    shallow = dict(depth=1) if name in PLAIN else dict(depths=(1, 1, 1, 1))
    model = timm.create_model(name, **shallow)
    cfg = model.default_cfg
    assert cfg["mean"] == IMAGENET_DEFAULT_MEAN
    assert cfg["std"] == IMAGENET_DEFAULT_STD
    assert cfg["num_classes"] == 1000
    assert cfg["crop_pct"] == (1.0 if name in SMALL else 0.875 if name in PLAIN else 0.9)
    size = 32 if name in SMALL else 224
    data = resolve_model_data_config(model)
    assert (data["input_size"], data["interpolation"]) == ((3, size, size), "bicubic")
    assert model.config.img_size == size
    for key in ("first_conv", "classifier"):
        assert model.get_submodule(cfg[key]).weight.requires_grad


@every_model
def test_in_chans(name):
    model = create(name, in_chans=5, num_classes=4)
    assert model(images(name, channels=5)).shape == (2, 4)
    with pytest.raises(ValueError, match=r"expected images \[B, 5, H, W\]"):
        model(images(name))


@every_model
@pytest.mark.parametrize("size", [(0.5, 0.7), (3.3, 1.0)])
def test_odd_sizes(name, size):
    assert create(name, num_classes=4)(images(name, *size)).shape == (2, 4)


@every_model
def test_checkpointing_gives_the_same_gradients(name):
    model, x = create(name, num_classes=4), images(name)
    results = []
    for enable in (False, True):
        model.set_grad_checkpointing(enable)
        model.zero_grad()
        logits = model(x)
        logits.square().sum().backward()
        results.append([logits, *(parameter.grad for parameter in model.parameters())])
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


@every_model
def test_bfloat16(name):
    """Both a model in bfloat16 and one under autocast stay close to float32, and have finite gradients."""
    model, x = create(name, num_classes=4), images(name)
    expected = model(x)
    with torch.autocast("cpu", torch.bfloat16):
        logits = model(x)
    logits.float().square().sum().backward()
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())
    assert_close(logits, expected, "bfloat16 model")
    low = model.bfloat16()
    assert_close(low(x.bfloat16()), expected, "bfloat16 model")


@every_model
def test_export(name):
    """The exported graph gives the model's numbers for any batch; light ones have no operator of ours."""
    settings = dict(depth=1) if name in PLAIN else dict(depths=(1, 1, 1, 1))
    model, x = create(name, num_classes=4, **settings).eval(), images(name)
    program = torch.export.export(model, (x,), dynamic_shapes=({0: torch.export.Dim("batch")},))
    x = images(name, batch=3)
    assert_close(program.module()(x), model(x), "float32")
    graphs = (m.graph for m in program.graph_module.modules() if isinstance(m, torch.fx.GraphModule))
    operators = {str(node.target) for graph in graphs for node in graph.nodes}
    assert any(target.startswith("v2m") for target in operators) == ("lite" not in name)


@every_model
def test_hub_round_trip_of_every_model(tmp_path, name):
    model, x = create(name, num_classes=5, in_chans=1).eval(), images(name, channels=1)
    timm.models.save_for_hf(model, tmp_path, safe_serialization=True)
    again = timm.create_model(f"local-dir:{tmp_path}", pretrained=True).eval()
    assert again.config.num_classes == 5
    assert torch.equal(again(x), model(x))


def test_no_weights_to_download():
    with pytest.raises(RuntimeError, match="No pretrained weights exist"):
        timm.create_model("v2m_nano", pretrained=True)


def test_arguments_of_create_model():
    model = timm.create_model("v2m_tiny_patch16_224", num_classes=10, img_size=(96, 160), in_chans=1)
    assert len(model.blocks) == 24
    assert model.pos_embed.shape == (1, 6, 10, 192)
    assert model(torch.randn(1, 1, 96, 160)).shape == (1, 10)


def test_unknown_argument():
    with pytest.raises(TypeError, match="d_stat"):
        timm.create_model("v2m_nano", d_stat=4)


SAVED = [
    {},
    dict(num_classes=5, in_chans=1),
    dict(directions="corners_rows_first", d_state=4, d_conv=3, expand=1, dt_rank=3),
    dict(directions=Directions.RELEASED, img_size=8),
    dict(class_token="edge"),
    dict(class_token="middle", global_pool="max", use_pos_embed=False),
    dict(mixer="exact", directions="opposite_corners"),
    dict(mixer="exact", sweeps=1),
    dict(mixer="raster", attention_blocks=1),
    dict(mixer="light", window=None),
    dict(mixer="conv"),
    dict(mixer="conv", single_gate=True),
    dict(mixer="attention"),
    dict(window=2),
    dict(decay="geometric"),
    dict(mixer="raster", decay="geometric"),
]


@pytest.mark.parametrize("settings", SAVED)
def test_hub_round_trip(tmp_path, settings):
    model = create("v2m_nano", **settings).eval()
    timm.models.save_for_hf(model, tmp_path, safe_serialization=True)
    again = timm.create_model(f"local-dir:{tmp_path}", pretrained=True).eval()
    assert again.global_pool == model.global_pool
    for field in fields(V2MConfig):
        if field.name not in ("img_size", "global_pool"):
            assert getattr(again.config, field.name) == getattr(model.config, field.name)
    x = torch.randn(2, model.in_chans, *model.patch_embed.img_size)
    assert torch.equal(again(x), model(x))


@pytest.mark.parametrize("class_token", [None, "edge", "middle"])
def test_hub_round_trip_to_another_head_and_size(tmp_path, class_token):
    model = create("v2m_nano", class_token=class_token).eval()
    timm.models.save_for_hf(model, tmp_path, safe_serialization=True)
    settings = dict(num_classes=7, img_size=(10, 6))
    again = timm.create_model(f"local-dir:{tmp_path}", pretrained=True, **settings).eval()
    assert again.pos_embed.shape[1:3] == (5, 3)
    x = torch.randn(2, 3, 10, 6)
    assert again(x).shape == (2, 7)
    pooled, expected = (m.forward_head(m.forward_features(x), pre_logits=True) for m in (again, model))
    assert torch.equal(pooled, expected)


def test_hub_round_trip_to_other_channels(tmp_path):
    model = create("v2m_nano").eval()
    timm.models.save_for_hf(model, tmp_path, safe_serialization=True)
    again = timm.create_model(f"local-dir:{tmp_path}", pretrained=True, in_chans=1).eval()
    grey = images(channels=1)
    assert_close(again(grey), model(grey.expand(-1, 3, -1, -1)), "float32")


def test_hub_round_trip_after_changes(tmp_path):
    model = create("v2m_nano", num_classes=10).eval()
    model.set_input_size((12, 16), patch_size=4)
    model.reset_classifier(5, "max")
    timm.models.save_for_hf(model, tmp_path, safe_serialization=True)
    again = timm.create_model(f"local-dir:{tmp_path}", pretrained=True).eval()
    x = torch.randn(2, 3, 12, 16)
    assert torch.equal(again(x), model(x))
    saved = json.loads((tmp_path / "config.json").read_text())
    assert (saved["architecture"], saved["num_classes"]) == ("v2m_nano", 5)


@pytest.mark.parametrize(("name", "other"), list(itertools.pairwise(NAMES)))
def test_names_are_different_models(name, other):
    with torch.device("meta"):
        models = [timm.create_model(n) for n in (name, other)]
    shapes = [{k: v.shape for k, v in model.state_dict().items()} for model in models]
    assert shapes[0] != shapes[1]
