"""Parity with the authors' code, and with the reference of the paper's arrangement."""

import math

import pytest
import torch

from tests.helpers import GOLDEN, assert_close, load_golden, parameters
from v2m.layers import V2MMixer
from v2m.models import V2M
from v2m.models.convert import checkpoint_filter_fn, infer_config, rename_released_keys

MIXERS = [(name, "released") for name in GOLDEN if name.startswith("mixer_")] + [
    (name, directions)
    for name in GOLDEN
    if name.startswith("corners_")
    for directions in ("corners", "corners_rows_first")
]
MODELS = [name for name in GOLDEN if name.startswith("model_")]


def test_the_files_are_found():
    assert len(MIXERS) == 8
    assert len(MODELS) == 2


@pytest.mark.parametrize(("name", "directions"), MIXERS)
def test_mixer(name, directions):
    golden = load_golden(name)
    state_dict = parameters(golden)
    inner, d_state = state_dict["A_log"].shape
    dim = inner // 2
    mixer = V2MMixer(dim, d_state=d_state, directions=directions).to(golden["x"].dtype)
    mixer.load_state_dict(state_dict)

    x = golden["x"]
    if directions == "released":
        side = math.isqrt(x.shape[1])
        x = x.unflatten(1, (side, side))
        suffix, prefix = "", "grad."
    else:
        suffix, prefix = f".{directions}", f"grad.{directions}."
    x.requires_grad_()
    y = mixer(x)
    (y * golden["cotangent"].view_as(y)).sum().backward()

    rule = "golden float64" if x.dtype == torch.float64 else "golden float32"
    gradient_rule = rule if x.dtype == torch.float64 else "golden float32 gradient"
    assert_close(y, golden[f"y{suffix}"].view_as(y), rule, "y")
    assert_close(x.grad, golden[f"grad_x{suffix}"].view_as(x), gradient_rule, "grad_x")
    for key, parameter in mixer.named_parameters():
        assert_close(parameter.grad, golden[prefix + key], gradient_rule, key)


@pytest.mark.parametrize("name", MODELS)
def test_model(name):
    golden = load_golden(name)
    released = parameters(golden)
    model = V2M(infer_config(rename_released_keys(released))).to(golden["image"].dtype).eval()
    model.load_state_dict(checkpoint_filter_fn(released, model))
    seen = {}
    for i, block in enumerate(model.blocks):
        block.register_forward_pre_hook(lambda _, args, i=i: seen.update({f"block{i}.residual": args[0]}))
        block.mixer.register_forward_hook(lambda _, args, y, i=i: seen.update({f"block{i}.hidden": y}))

    image = golden["image"].requires_grad_()
    features = model.forward_head(model.forward_features(image), pre_logits=True)
    logits = model.head(features)
    seen |= {"tokens": seen["block0.residual"], "features": features, "logits": logits}
    rule = "golden float64" if image.dtype == torch.float64 else "golden model float32"
    for key, value in seen.items():
        assert_close(value, golden[key].view_as(value), rule, key)

    (logits * golden["cotangent"]).sum().backward()
    gradients = {"grad_image": image.grad} | {f"grad.{k}": p.grad for k, p in model.named_parameters()}
    expected = rename_released_keys(
        {k.removeprefix("grad."): v for k, v in golden.items() if k.startswith("grad")}
    )
    assert len(expected) >= 21
    for key, value in expected.items():
        actual = gradients[key if key == "grad_image" else f"grad.{key}"]
        assert_close(actual, value.view_as(actual), rule, key)


def test_released_differs_from_the_paper():
    golden = load_golden("corners_dm32_ds8_grid6x6_f64")
    mixer = V2MMixer(32, d_state=8, directions="released").double()
    mixer.load_state_dict(parameters(golden))
    assert (mixer(golden["x"]) - golden["y.corners"]).abs().max() > 0.1
