import copy
import re
from functools import partial

import pytest
import torch
import torch.nn.functional as F

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
from v2m.models import V2M, V2MConfig

small = partial(V2M, img_size=(32, 48), embed_dim=32, depth=2, d_state=4, num_classes=5)


def images(height=32, width=48, batch=2, channels=3):
    return torch.randn(batch, channels, height, width)


def without(x, index, dim):
    """``x`` without the row or column at ``index``."""
    return x[(slice(None),) * dim + ([k for k in range(x.shape[dim]) if k != index],)]


def capture(module, name, seen):
    """Keep the input and output of every call to ``module``."""
    module.register_forward_hook(
        lambda _, args, output: seen.setdefault(name, []).append((args[0].detach(), output.detach()))
    )


MIXER_KEYS = [
    "A_2_log",
    "A_log",
    "D",
    "D_2",
    "conv1d.bias",
    "conv1d.weight",
    "conv1d_2.bias",
    "conv1d_2.weight",
    "dt_proj.bias",
    "dt_proj.weight",
    "dt_proj_2.bias",
    "dt_proj_2.weight",
    "in_proj.weight",
    "out_proj.weight",
    "x_proj.weight",
    "x_proj_2.weight",
]


@pytest.mark.parametrize(
    ("settings", "more"),
    [
        ({}, ["pos_embed"]),
        (dict(use_pos_embed=False), []),
        (dict(class_token="edge"), ["pos_embed", "cls_token", "cls_row", "cls_col"]),
    ],
)
def test_state_dict_keys(settings, more):
    expected = ["patch_embed.proj.weight", "patch_embed.proj.bias", "norm.weight", "head.weight", "head.bias"]
    expected += ["blocks.0.norm.weight", *(f"blocks.0.mixer.{key}" for key in MIXER_KEYS), *more]
    assert sorted(small(depth=1, **settings).state_dict()) == sorted(expected)


@torch.no_grad()
def test_initial_values():
    model = small(depth=9, embed_dim=64)
    for block in model.blocks:
        assert (block.norm.weight == 1).all()
        out = block.mixer.out_proj.weight.abs().max() * 128**0.5 * 3  # depth 9: a third of PyTorch's bound
        assert 0.95 < out <= 1 + 1e-6
    assert model.pos_embed.std() == pytest.approx(0.02, rel=0.2)
    assert model.head.weight.std() == pytest.approx(0.02, rel=0.2)
    assert model.head.bias.abs().max() == model.patch_embed.proj.bias.abs().max() == 0
    assert model.patch_embed.proj.weight.std() == pytest.approx((3 * 16 * 16) ** -0.5, rel=0.05)


def test_both_step_size_biases_are_initialised_in_every_block():
    for block in small().blocks:
        for layer in (block.mixer.dt_proj, block.mixer.dt_proj_2):
            steps = F.softplus(layer.bias)
            assert 1e-4 <= steps.min() < steps.max() <= 0.1 + 1e-6


@torch.no_grad()
def test_init_weights_restores_the_scans():
    mixer = (model := small()).blocks[1].mixer
    restored = (mixer.A_log, mixer.A_2_log, mixer.D, mixer.D_2, mixer.dt_proj.bias, mixer.dt_proj_2.bias)
    expected = [parameter.clone() for parameter in restored[:4]]
    for parameter in restored:
        parameter.fill_(torch.nan)
    model.init_weights()
    assert all(torch.equal(a, b) for a, b in zip(restored, expected, strict=False))
    assert all(bool((parameter < -2).all()) for parameter in restored[4:])  # softplus(-2) is 0.13


def test_config_and_overrides():
    config = V2MConfig(embed_dim=32, depth=2, num_classes=5)
    model = V2M(config, depth=1)
    assert (model.config.embed_dim, model.config.depth, len(model.blocks)) == (32, 1, 1)
    assert config.depth == 2


@pytest.mark.parametrize(
    ("setting", "look"),
    [
        (dict(d_state=7), lambda m: m.A_log.shape[1] == 7),
        (dict(d_conv=3), lambda m: m.conv1d_2.weight.shape[-1] == 3),
        (dict(expand=3), lambda m: m.out_proj.in_features == 96),
        (dict(dt_rank=5), lambda m: m.dt_proj.in_features == 5),
        (dict(directions="corners_rows_first"), lambda m: m.directions is Directions.CORNERS_ROWS_FIRST),
        (dict(directions=Directions.CORNERS), lambda m: m.directions is Directions.CORNERS),
        (dict(single_gate=True), lambda m: m.single_gate),
        (dict(single_gate=True, window=2), lambda m: m.single_gate and m.local.single_gate),
        (dict(single_gate=True, mixer="conv"), lambda m: m.scans[0].single_gate),
        ({}, lambda m: not m.single_gate),
    ],
)
def test_mixer_settings_are_model_arguments(setting, look):
    model = small(**setting)
    assert all(look(block.mixer) for block in model.blocks)
    assert model(images()).isfinite().all()


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        (dict(d_stat=3), TypeError, "d_stat"),
        (dict(depth=0), ValueError, "depth is 0, expected an integer from 1"),
        (
            dict(class_token="corner"),
            ValueError,
            "class_token is 'corner', expected 'edge', 'middle' or None",
        ),
        (dict(global_pool="mean"), ValueError, "global_pool is 'mean', expected 'avg', 'max'"),
        (dict(global_pool="token"), ValueError, "global_pool is 'token', which needs class_token"),
        (dict(directions="diagonal"), ValueError, "directions is 'diagonal', expected one of 'corners'"),
        (dict(mixer="both"), ValueError, "mixer is 'both', expected one of 'v2m', 'conv', 'exact', 'raster'"),
        (dict(mixer=["v2m"]), ValueError, r"mixer is \['v2m'\], expected one of 'v2m', 'conv'"),
        (dict(mixer="exact", sweeps=-1), ValueError, "sweeps is -1, expected an integer from 0"),
        (dict(sweeps=2), ValueError, "sweeps is 2, which needs mixer 'exact', not 'v2m'"),
        (dict(mixer="attention", d_state=4), ValueError, "d_state is 4, which needs mixer 'v2m', 'conv',"),
        (
            dict(mixer="raster", directions="one_corner"),
            ValueError,
            "directions is 'one_corner', which needs mixer 'v2m', 'conv' or 'exact', not 'raster'",
        ),
        (dict(mixer="light", window=7), ValueError, "window is 7, which needs mixer 'v2m', not 'light'"),
        (
            dict(mixer="light", single_gate=True),
            ValueError,
            "single_gate is True, which needs mixer 'v2m' or 'conv', not 'light'",
        ),
        (dict(mixer="conv", window=7), ValueError, "window is 7, which needs mixer 'v2m', not 'conv'"),
        (
            dict(window=7, directions="one_corner"),
            ValueError,
            "window is 7, expected None with directions='one_corner'",
        ),
        (dict(window=0), ValueError, "window is 0, expected a positive integer"),
        (dict(attention_blocks=3), ValueError, "attention_blocks is 3, expected at most the depth, 2"),
        (dict(d_state=0), ValueError, "d_state is 0, expected an integer from 1"),
    ],
)
def test_wrong_settings(settings, error, message):
    with pytest.raises(error, match=message):
        small(**settings)


@pytest.mark.parametrize(
    ("x", "error", "message"),
    [
        (
            torch.zeros(3, 32, 48),
            ValueError,
            r"input has shape \[3, 32, 48\], expected images \[B, 3, H, W\]",
        ),
        (torch.zeros(1, 1, 32, 48), ValueError, r"shape \[1, 1, 32, 48\], expected images \[B, 3, H, W\]"),
        (torch.zeros(1, 32, 48, 3), ValueError, r"shape \[1, 32, 48, 3\], expected images \[B, 3, H, W\]"),
        (
            torch.zeros(1, 3, 32, 48, dtype=torch.uint8),
            TypeError,
            "dtype torch.uint8, expected floating point",
        ),
    ],
)
def test_wrong_images(x, error, message):
    with pytest.raises(error, match=message):
        small()(x)


@pytest.mark.parametrize(("height", "width"), [(30, 45), (1, 1), (17, 64)])
def test_other_sizes_are_padded_with_zeros_at_the_bottom_and_right(height, width):
    model, x = small(), images(height, width)
    padded = F.pad(x, (0, -width % 16, 0, -height % 16))
    assert model.forward_features(x).shape[1:3] == (padded.shape[2] // 16, padded.shape[3] // 16)
    assert torch.equal(model(x), model(padded))


def test_position_embedding_is_optional():
    model = small(use_pos_embed=False, class_token="middle")
    assert model.pos_embed is None
    assert model(images(64, 32)).shape == (2, 5)
    model.set_input_size((64, 32))
    assert model(images(64, 32)).shape == (2, 5)


def test_position_embedding_is_added_once():
    model, x, seen = small(), images(), {}
    capture(model.patch_embed, "patches", seen)
    capture(model.blocks[0], "block", seen)
    model(x)
    assert torch.equal(seen["block"][0][0], seen["patches"][0][1] + model.pos_embed)
    assert model.pos_embed.shape == (1, 2, 3, 32)


@pytest.mark.parametrize("pool", ["avg", "max", "token", ""])
def test_pooling(pool):
    model = small(class_token="edge" if pool == "token" else None, global_pool=pool)
    features = model.forward_features(images())
    pooled = model.forward_head(features, pre_logits=True)
    expected = {
        "avg": lambda: features.flatten(1, 2).mean(1),
        "max": lambda: features.flatten(1, 2).max(1).values,
        "token": lambda: features[:, 2, 3],
        "": lambda: features,
    }[pool]()
    assert_close(pooled, expected, "float32")
    assert_close(model.forward_head(features), model.head(expected), "float32")


@pytest.mark.parametrize(("class_token", "expected"), [(None, "avg"), ("edge", "token"), ("middle", "token")])
def test_default_pooling(class_token, expected):
    assert small(class_token=class_token).global_pool == expected


CROSSINGS = [
    ("edge", (32, 48), (2, 3)),
    ("edge", (80, 48), (5, 3)),
    ("middle", (32, 48), (1, 1)),
    ("middle", (80, 64), (2, 2)),
]


@pytest.mark.parametrize(("class_token", "size", "crossing"), CROSSINGS)
def test_class_token_is_read_at_the_crossing(class_token, size, crossing):
    model = small(class_token=class_token, img_size=size)
    features = model.forward_features(images(*size)).detach().requires_grad_()
    assert features.shape == (2, size[0] // 16 + 1, size[1] // 16 + 1, 32)
    model.forward_head(features).square().sum().backward()
    read = (features.grad != 0).any(-1)
    expected = torch.zeros_like(read)
    expected[:, crossing[0], crossing[1]] = True
    assert torch.equal(read, expected)


@pytest.mark.parametrize(("class_token", "size", "crossing"), CROSSINGS)
def test_class_token_is_a_row_and_a_column_of_learned_tokens(class_token, size, crossing):
    model, x, seen = small(class_token=class_token, img_size=size), images(*size), {}
    plain = small(img_size=size)
    plain.load_state_dict(model.state_dict(), strict=False)
    capture(model.blocks[0], "with", seen)
    capture(plain.blocks[0], "without", seen)
    model(x), plain(x)
    tokens, (i, j) = seen["with"][0][0], crossing
    assert torch.equal(tokens[:, i, j], model.cls_token[:, 0, 0].expand(2, -1))
    assert torch.equal(without(tokens[:, i], j, 1), model.cls_row[:, 0].expand(2, -1, -1))
    assert torch.equal(without(tokens[:, :, j], i, 1), model.cls_col[:, :, 0].expand(2, -1, -1))
    patches = without(without(tokens, i, 1), j, 2)
    assert torch.equal(patches, seen["without"][0][0])


@pytest.mark.parametrize(("class_token", "size", "crossing"), CROSSINGS)
def test_feature_maps_and_means_leave_the_class_token_out(class_token, size, crossing):
    model, x, seen = small(class_token=class_token, img_size=size, global_pool="avg"), images(*size), {}
    capture(model.blocks[1], "block", seen)
    (feature_map,) = model.forward_intermediates(x, indices=1, intermediates_only=True, output_fmt="NHWC")
    tokens, (i, j) = seen["block"][0][1], crossing
    assert torch.equal(feature_map, without(without(tokens, i, 1), j, 2))
    pooled = model.forward_head(model.forward_features(x), pre_logits=True)
    assert_close(pooled, model.norm(feature_map).mean((1, 2)), "float32")


@pytest.mark.parametrize("class_token", [None, "edge", "middle"])
@pytest.mark.parametrize("size", [(64, 96), (40, 20), 80])
def test_set_input_size_equals_the_size_taken_on_the_fly(class_token, size):
    model = small(class_token=class_token)
    height, width = (size, size) if isinstance(size, int) else size
    x = images(height, width)
    expected = model(x)
    frozen = model.pos_embed.requires_grad_(False)
    model.set_input_size(size)
    grid = (-(-height // 16), -(-width // 16))
    assert model.pos_embed.shape[1:3] == grid
    assert model.pos_embed is not frozen
    assert not model.pos_embed.requires_grad
    if class_token:
        assert model.cls_row.shape[1:3] == (1, grid[1])
        assert model.cls_col.shape[1:3] == (grid[0], 1)
        assert model.cls_row.requires_grad
    assert model.patch_embed.img_size == (height, width)
    assert torch.equal(model(x), expected)


def test_set_patch_size():
    model = small()
    model.set_input_size(patch_size=8)
    assert model.patch_embed.proj.weight.shape == (32, 3, 8, 8)
    assert model.forward_features(images()).shape == (2, 4, 6, 32)
    assert [info["reduction"] for info in model.feature_info] == [8, 8]
    assert model.config.patch_size == (8, 8)


@pytest.mark.parametrize("name", ["row", "col"])
def test_position_embedding_is_resized_along_the_right_axis(name):
    """An embedding that changes along one axis only still does after resizing."""
    model = small(img_size=(64, 64))
    ramp = torch.arange(4.0).view((1, 1, 4, 1) if name == "row" else (1, 4, 1, 1))
    model.pos_embed.data.copy_(ramp.expand_as(model.pos_embed))
    model.set_input_size((48, 96))
    along, across = (2, 1) if name == "row" else (1, 2)
    assert (model.pos_embed.diff(dim=along) > 0).all()
    assert model.pos_embed.diff(dim=across).abs().max() < 1e-5


def test_drop_path_rates_are_linear_from_zero():
    model = small(depth=5, drop_path_rate=0.2)
    assert not hasattr(model.blocks[0].drop_path, "drop_prob")
    rates = [block.drop_path.drop_prob for block in list(model.blocks)[1:]]
    assert rates == pytest.approx([0.05, 0.1, 0.15, 0.2])


@pytest.mark.parametrize("rate", ["drop_path_rate", "drop_rate"])
def test_dropping_is_random_in_training_only(rate):
    model, x = small(**{rate: 0.5}), images(batch=16)
    assert not torch.equal(model(x), model(x))
    model.eval()
    assert torch.equal(model(x), model(x))
    plain = small().eval()
    plain.load_state_dict(model.state_dict())
    assert torch.equal(plain(x), model(x))


def gradients(model, x):
    model.zero_grad()
    x = x.clone().requires_grad_()
    y = model(x)
    y.square().sum().backward()
    return [y.detach(), x.grad, *(p.grad.clone() for p in model.parameters())]


def test_grad_checkpointing_recomputes_every_block_and_changes_nothing():
    model, x, runs = small(class_token="edge"), images(), []
    expected = gradients(model, x)
    model.blocks[0].register_forward_pre_hook(lambda *_: runs.append(1))
    model.set_grad_checkpointing()
    actual = gradients(model, x)
    assert len(runs) == 2
    assert all(torch.equal(a, b) for a, b in zip(actual, expected, strict=True))
    with torch.no_grad():
        assert torch.equal(model(x), expected[0])
    assert len(runs) == 3
    model.set_grad_checkpointing(False)
    gradients(model, x)
    assert len(runs) == 4


def test_float64():
    model, x = small(), images()
    expected = model(x)
    double = copy.deepcopy(model).double()
    y = double(x.double())
    assert y.dtype == torch.float64
    assert_close(expected, y, "float32")
    assert double.forward_features(x.double()).dtype == torch.float64


def test_bfloat16_parameters_with_a_float32_residual_stream():
    model, x, seen = small(), images(), {}
    expected = model(x)
    model.bfloat16()
    capture(model.blocks[1], "block", seen)
    y = model(x.bfloat16())
    assert y.dtype == torch.bfloat16
    assert {t.dtype for t in seen["block"][0]} == {torch.float32}
    assert_close(y, expected, "bfloat16 layers")


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast(dtype, checkpointing):
    model, x = small(), images()
    model.set_grad_checkpointing(checkpointing)
    with torch.autocast("cpu", dtype):
        y = model(x)
    assert y.dtype == dtype
    assert_close(y, model(x), f"{str(dtype).removeprefix('torch.')} layers")


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_stays_finite_with_large_activations(dtype):
    model = small(depth=3)
    for block in model.blocks:
        block.mixer.out_proj.weight.data.mul_(1000)
    x = (1000 * images()).requires_grad_()
    with torch.autocast("cpu", dtype):
        y = model(x)
    assert y.isfinite().all()
    y.float().square().mean().backward()
    for name, gradient in [("image", x.grad), *((name, p.grad) for name, p in model.named_parameters())]:
        assert gradient.isfinite().all(), name


@pytest.mark.parametrize("how", ["argument", "context"])
def test_built_on_the_meta_device(how):
    if how == "argument":
        model = small(device="meta", dtype=torch.bfloat16)
        assert model.head.weight.dtype == torch.bfloat16
    else:
        with torch.device("meta"):
            model = small(drop_path_rate=0.1)
    assert {p.device.type for p in model.parameters()} == {"meta"}
    model = model.to_empty(device="cpu").float()
    reference = small()
    model.load_state_dict(reference.state_dict())
    x = images()
    assert torch.equal(model.eval()(x), reference(x))


def test_strided_images():
    model, x = small(), images()
    assert_close(model(x.contiguous(memory_format=torch.channels_last)), model(x), "float32")
    assert_close(model(x.transpose(2, 3).contiguous().transpose(2, 3)), model(x), "float32")


def test_empty_batch():
    assert small()(images(batch=0)).shape == (0, 5)


def test_copies_are_independent():
    model, x = small(), images()
    clone, expected = copy.deepcopy(model), model(x)
    clone.head.weight.data.zero_()
    assert torch.equal(model(x), expected)


def test_init_weights_fills_a_model_from_the_meta_device():
    model = small(device="meta").to_empty(device="cpu")
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(float("nan"))
    model.init_weights()
    assert all(parameter.isfinite().all() for parameter in model.parameters())


@pytest.mark.parametrize(
    "wrong",
    [
        dict(img_size=0),
        dict(img_size=(8, 8, 8)),
        dict(patch_size=(2, -1)),
        dict(in_chans=0),
        dict(num_classes=-1),
        dict(embed_dim=0),
        dict(depth=2.0),
        dict(drop_rate=-0.1),
        dict(drop_path_rate=1.5),
    ],
    ids=str,
)
def test_values_out_of_range_are_named(wrong):
    name, value = next(iter(wrong.items()))
    with pytest.raises(ValueError, match=rf"V2MConfig: {name} is {re.escape(repr(value))}, expected"):
        V2M(**wrong)


def test_an_unknown_argument_is_answered_with_the_nearest():
    with pytest.raises(TypeError, match="no argument 'd_stat', the nearest is 'd_state'"):
        V2M(d_stat=3)
    with pytest.raises(TypeError, match="no argument 'zzz', expected one of in_chans, "):
        V2M(zzz=3)


@pytest.mark.parametrize(
    ("settings", "kinds"),
    [
        ({}, [V2MMixer] * 3),
        (dict(mixer="conv"), [SharedConvMixer] * 3),
        (dict(mixer="exact"), [ExactMixer] * 3),
        (dict(mixer="exact", sweeps=2), [ExactMixer] * 3),
        (dict(mixer="raster"), [RasterMixer] * 3),
        (dict(mixer="light"), [LightMixer] * 3),
        (dict(mixer="attention", d_state=None), [AttentionMixer] * 3),
        (dict(attention_blocks=1), [V2MMixer, V2MMixer, AttentionMixer]),
        (dict(attention_blocks=3, mixer="raster"), [AttentionMixer] * 3),
    ],
)
def test_the_mixer_of_every_block(settings, kinds):
    model = small(depth=3, **settings)
    assert [type(block.mixer) for block in model.blocks] == kinds
    logits = model(images())
    logits.square().sum().backward()
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())


def test_blocks_with_windows_take_turns():
    model = small(depth=3, window=2)
    assert [block.mixer.is_first_local for block in model.blocks] == [False, True, False]


def test_sweeps_of_the_scans():
    model = small(mixer="exact", sweeps=5)
    assert {block.mixer.scans[0].sweeps for block in model.blocks} == {5}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(
            (name, value)
            for name in ("img_size", "patch_size")
            for value in (0, -1, True, 1.5, "x", 2**70, (8, 0))
        ),
        *(
            (name, value)
            for name in ("in_chans", "embed_dim", "depth", "d_state", "expand", "dt_rank", "d_conv")
            for value in (0, -1, True, 1.5, "x", [1], float("nan"), 2**70)
        ),
        *(
            (name, value)
            for name in ("drop_rate", "drop_path_rate")
            for value in (-0.1, 1, "x", [1], float("nan"))
        ),
        *(
            (name, value)
            for name in ("single_gate", "conv_stem", "use_pos_embed")
            for value in ("x", 2, [1], 0.5)
        ),
    ],
)
def test_arguments_that_are_no_sizes(name, value):
    with pytest.raises((ValueError, TypeError), match=rf"^\w+: {name} is [^\n]*, expected [^\n]*$"):
        v2m.create_model("v2m_nano", **{"img_size": 8, name: value})


@pytest.mark.parametrize("variant", ["v2m_nano", "v2m_lite_nano"])
@pytest.mark.parametrize("image", ["x", None, [1], torch.ones(1, 3, 8, 8).to_sparse(), torch.ones(3).numpy()])
def test_inputs_that_are_no_dense_tensors(variant, image):
    with pytest.raises(TypeError, match=r"^\w+: input is [^\n]*, expected a dense tensor of images$"):
        v2m.create_model(variant)(image)
