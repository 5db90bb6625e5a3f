"""Feature maps by every way that timm has, and what pictures of them are made with."""

import warnings

import pytest
import timm
import torch
from torchvision.models.feature_extraction import create_feature_extractor

import v2m
from tests.helpers import assert_close
from v2m.models.config import PLAIN

every_model = pytest.mark.parametrize("name", v2m.list_models())
FAMILIES = [
    ("v2m_nano", dict(depth=3)),
    ("v2m_nano", dict(depth=3, class_token="middle")),
    ("v2m_micro", dict(depth=3, patch_size=8)),
    ("v2m_hierarchical_small", dict(depths=(1, 2, 1, 1), embed_dim=(8, 8, 16, 16))),
    ("v2m_lite_nano", dict(depths=(1, 2, 1, 1), embed_dim=(8, 8, 16, 16))),
]
every_family = pytest.mark.parametrize(("name", "settings"), FAMILIES)


def create(name, **settings):
    """A model with weights that depend on the seed alone, and images that are not square."""
    torch.manual_seed(0)
    return timm.create_model(name, **settings, img_size=32).eval(), torch.randn(2, 3, 40, 72)


@every_family
@pytest.mark.parametrize("feature_cls", ["getter", "hook", "list", "dict", "fx"])
def test_every_class_of_features(name, settings, feature_cls):
    whole, images = create(name, **settings)
    expected = whole.forward_intermediates(images, indices=[0, 2], intermediates_only=True)
    model, _ = create(name, **settings, features_only=True, out_indices=(0, 2), feature_cls=feature_cls)
    source = {"getter": "model.", "hook": "body.", "list": "body.", "dict": "body.", "fx": "graph_module."}
    prefix = source[feature_cls]
    weights = {prefix + key: value for key, value in whole.state_dict().items()}
    missing, _ = model.load_state_dict(weights, strict=False)
    assert not missing
    maps = model(images)
    assert isinstance(maps, dict) == (feature_cls == "dict")
    if feature_cls == "dict":
        assert list(maps) == model.feature_info.module_name()
        maps = list(maps.values())
    if feature_cls != "getter":  # these give what a module gives: channels last, class tokens and all
        assert model.output_fmt == timm.layers.Format.NHWC
        maps = [whole._without_class_token(m).permute(0, 3, 1, 2) for m in maps]
    assert [m.shape[1] for m in maps] == model.feature_info.channels()
    for actual, right in zip(maps, expected, strict=True):
        assert_close(actual, right, "float32")


@every_model
def test_what_timm_asks_of_a_default_configuration(name):
    shallow = dict(depth=1) if name in PLAIN else dict(depths=(1,) * 4, embed_dim=(8,) * 4)
    model = timm.create_model(name, **shallow).eval()
    cfg = model.default_cfg
    images = torch.randn(1, *cfg["input_size"])
    maps = model.forward_features(images)
    assert model.output_fmt == "NHWC"
    assert tuple(maps.shape[1:]) == (*cfg["pool_size"], model.num_features)
    assert model.forward_head(maps, pre_logits=True).shape == (1, model.head_hidden_size)
    model.reset_classifier(0, "")
    assert torch.equal(model(images), maps)
    for key in (cfg["first_conv"], cfg["classifier"]):
        assert f"{key}.weight" in timm.create_model(name, **shallow).state_dict()


@every_family
@pytest.mark.parametrize("is_training", [False, True])
def test_a_graph_of_the_model_by_fx(name, settings, is_training):
    model, images = create(name, **settings)
    model.train(is_training)
    tracer = dict(
        leaf_modules=list(timm.models.get_notrace_modules()),
        autowrap_functions=list(timm.models.get_notrace_functions()),
    )
    nodes = {"head": "scores"}
    graph = create_feature_extractor(model, nodes, tracer_kwargs=tracer)
    expected = model(images)
    expected.square().sum().backward()
    gradients = {key: p.grad.clone() for key, p in model.named_parameters()}
    model.zero_grad()
    scores = graph(images)["scores"]
    scores.square().sum().backward()
    assert_close(scores, expected, "float32")
    parts = dict(graph.named_parameters())
    for key, gradient in gradients.items():
        assert_close(parts[key].grad, gradient, "float32 gradient", key)


@every_family
def test_traced(name, settings):
    model, images = create(name, **settings)
    expected = model(images)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # tracing is going away, and shapes become constants
        traced = torch.jit.trace(model, images)
    assert_close(traced(images), expected, "float32")


def last_layer(model):
    return model.stages[-1] if hasattr(model, "stages") else model.blocks[-1]


def channels_first(x):
    return x.permute(0, 3, 1, 2)


@every_family
def test_grad_cam(name, settings):
    grad_cam = pytest.importorskip("pytorch_grad_cam")
    model, images = create(name, **settings)
    layer = last_layer(model)
    with grad_cam.GradCAM(model, [layer], reshape_transform=channels_first) as cam:
        heat = torch.from_numpy(cam(images, None))  # of the class with the highest score
    activations, gradients = [], []
    layer.register_forward_hook(lambda module, args, y: activations.append(y))
    layer.register_full_backward_hook(lambda module, args, grads: gradients.append(grads[0]))
    scores = model(images)
    scores.amax(1).sum().backward()
    weights = gradients[0].mean((1, 2), keepdim=True)
    expected = (weights * activations[0]).sum(-1).relu()
    assert heat.shape == (2, 40, 72)
    assert expected.shape[1:3] != (1, 1)
    for image, right in zip(heat, expected, strict=True):
        if right.any():
            assert image.max() == pytest.approx(1, abs=1e-5)
        assert bool(image.any()) == bool(right.any())


@every_family
def test_captum(name, settings):
    captum = pytest.importorskip("captum.attr")
    model, images = create(name, **settings)
    layer = last_layer(model)
    shown = captum.LayerGradCam(model, layer).attribute(images, target=0)
    activations = captum.LayerActivation(model, layer).attribute(images)
    last = model.forward_intermediates(images, indices=1, output_fmt="NHWC", intermediates_only=True)[0]
    assert_close(model._without_class_token(activations), last, "float32")
    assert shown.shape[0] == 2
    assert shown.isfinite().all()
    of_pixels = captum.Saliency(model).attribute(images.requires_grad_(), target=0)
    assert of_pixels.shape == images.shape
    assert of_pixels.any()


def test_sides_of_no_pixels():
    for name in ("v2m_nano", "v2m_lite_nano"):
        model = v2m.create_model(name)
        with pytest.raises(ValueError, match=r"shape \[1, 3, 0, 32\], expected images of a pixel at least"):
            model(torch.zeros(1, 3, 0, 32))
