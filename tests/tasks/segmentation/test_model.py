"""Segmentation models against segmentation-models-pytorch, and inference in parts."""

import pytest
import segmentation_models_pytorch as smp
import torch
import torch.nn.functional as F

from tests.tasks.segmentation.conftest import SMALL, tiny_model
from v2m.tasks.segmentation.config import HeadConfig, InferenceConfig
from v2m.tasks.segmentation.model import Segmenter, predict

TINY_PLAIN = dict(embed_dim=16, depth=4)


@pytest.mark.parametrize(
    ("name", "args"), [("v2m_lite_nano", {}), ("v2m_hierarchical_small", SMALL), ("resnet18", {})]
)
@pytest.mark.parametrize("decoder", ["upernet", "fpn"])
def test_is_smp(name, args, decoder):
    ours = Segmenter(name, args, 4, (64, 64), HeadConfig(decoder, 128), auxiliary=False)
    width = dict(decoder_channels=128)
    if decoder == "fpn":
        width = dict(decoder_pyramid_channels=128, decoder_segmentation_channels=64)
    theirs = smp.create_model(decoder, f"tu-{name}", encoder_weights=None, classes=4, **width, **args)
    state = {k.replace("encoder.", "backbone.", 1): v for k, v in theirs.state_dict().items()}
    ours.load_state_dict(state)
    images = torch.randn(2, 3, 64, 96)
    with torch.no_grad():
        torch.testing.assert_close(ours.eval()(images), theirs.eval()(images), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "args", "decoder"),
    [
        ("v2m_lite_nano", SMALL, "upernet"),
        ("v2m_lite_nano", SMALL, "dpt"),
        ("v2m_hierarchical_small", SMALL, "fpn"),
        ("v2m_nano", TINY_PLAIN, "upernet"),
        ("v2m_nano", TINY_PLAIN, "dpt"),
        ("v2m_tiny_patch16_224", TINY_PLAIN, "dpt"),
        ("resnet18", {}, "upernet"),
    ],
)
@pytest.mark.parametrize("auxiliary", [False, True])
def test_any_size_and_no_unused_parameter(name, args, decoder, auxiliary):
    model = tiny_model(decoder, 5, auxiliary, name, args)
    logits, coarse = model(torch.randn(2, 3, 36, 65))
    assert logits.shape == (2, 5, 36, 65)
    assert (coarse is not None) == auxiliary
    total = logits.square().mean()
    if coarse is not None:
        assert coarse.shape == logits.shape
        total = total + coarse.square().mean()
    total.backward()
    assert [n for n, p in model.named_parameters() if p.grad is None] == []
    with torch.no_grad():
        assert model.eval()(torch.randn(1, 3, 7, 45)).shape == (1, 5, 7, 45)


def test_maps_of_dpt_are_those_of_four_blocks():
    assert tiny_model("dpt", name="v2m_nano", model_args=TINY_PLAIN).backbone.strides == [2, 2, 2, 2]


def test_timm_contract():
    model = tiny_model("upernet", name="v2m_nano", model_args=TINY_PLAIN)
    model.set_grad_checkpointing()
    layers = model.group_matcher()
    assert layers("decoder.psp.out_conv.0.weight") > layers("backbone.model.model.blocks.3.norm.weight")
    assert model.no_weight_decay() <= {name for name, _ in model.named_parameters()}


def test_one_image_is_too_few_for_upernet():
    with pytest.raises(ValueError, match="batch_size: a process has a single image"):
        tiny_model("upernet")(torch.randn(1, 3, 32, 32))


@pytest.mark.parametrize(
    "inference",
    [
        InferenceConfig(),
        InferenceConfig(window=32, stride=20),
        InferenceConfig(scales=(0.5, 1.0, 1.5), flip=True),
        InferenceConfig(window=32, scales=(1.0, 1.25), short_side=40),
    ],
)
def test_images_do_not_depend_on_each_other(inference):
    model = tiny_model().double().eval()  # group norm of one cell makes much of a rounding error
    images = [torch.randn(3, *size, dtype=torch.float64) for size in ((33, 50), (70, 64), (33, 50), (20, 31))]
    together = predict(model, images, inference)
    assert [tuple(scores.shape) for scores in together] == [(3, *image.shape[1:]) for image in images]
    for image, scores in zip(images, together, strict=True):
        torch.testing.assert_close(predict(model, [image], inference)[0], scores)


def test_few_scores_at_once(monkeypatch):
    model, images = tiny_model().eval(), [torch.randn(3, 32, 40) for _ in range(5)]
    whole = predict(model, images, InferenceConfig())
    monkeypatch.setattr("v2m.tasks.segmentation.model.MOST_SCORES", 2 * 3 * 32 * 40)
    for scores, expected in zip(predict(model, images, InferenceConfig()), whole, strict=True):
        torch.testing.assert_close(scores, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("window", [64, 1000])
def test_one_window_is_the_whole_image(window):
    model, image = tiny_model().eval(), torch.randn(3, 45, 64)
    whole, slid = (predict(model, [image], InferenceConfig(window=w))[0] for w in (None, window))
    assert torch.equal(whole, slid)


def test_windows_cover_the_image_and_are_averaged():
    inference = InferenceConfig(window=32, stride=24)
    model, image = tiny_model().eval(), torch.randn(3, 32, 70)
    total, count = torch.zeros(3, 32, 70), torch.zeros(70)
    for left in (0, 24, 38):
        with torch.no_grad():
            total[..., left : left + 32] += model(image[None, :, :, left : left + 32])[0]
        count[left : left + 32] += 1
    torch.testing.assert_close(predict(model, [image], inference)[0], total / count)


def test_scales_and_flips_average_probabilities():
    inference = InferenceConfig(scales=(1.0, 1.5), flip=True)
    model, image = tiny_model().eval(), torch.randn(1, 3, 32, 40)
    larger = F.interpolate(image, (48, 60), mode="bilinear", antialias=True)
    with torch.no_grad():
        views = [model(image), model(image.flip(-1)).flip(-1)]
        for view, is_flipped in ((larger, False), (larger.flip(-1), True)):
            logits = model(view).flip(-1) if is_flipped else model(view)
            views.append(F.interpolate(logits, (32, 40), mode="bilinear"))
    expected = torch.stack([view.softmax(1) for view in views]).mean(0)
    torch.testing.assert_close(predict(model, list(image), inference)[0].softmax(0), expected[0])


def test_short_side_scales_the_image():
    model, image = tiny_model().eval(), torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        small = model(F.interpolate(image, (32, 48), mode="bilinear", antialias=True))
    expected = F.interpolate(small, (64, 96), mode="bilinear")
    torch.testing.assert_close(predict(model, list(image), InferenceConfig(short_side=32))[0], expected[0])
