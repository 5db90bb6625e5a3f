import pytest
import timm
import torch

from v2m.data import ImageSpec
from v2m.features.frozen import open_frozen, pooled_features
from v2m.tasks.classification.evaluation import ClassificationEvaluator
from v2m.tasks.classification.saved import save

SPEC = ImageSpec((8, 12), 3, (0.5,) * 3, (0.25,) * 3, 1.0, "bicubic")


@pytest.fixture
def folder(tmp_path):
    model = timm.create_model("v2m_nano", depth=1, embed_dim=16, d_state=2, num_classes=3, img_size=8)
    save(model, ClassificationEvaluator(["red", "green", "blue"], SPEC), tmp_path)
    return tmp_path


def test_a_folder_is_known_by_what_it_holds(folder):
    frozen = open_frozen(str(folder), "digits")
    assert (frozen.architecture, frozen.spec, frozen.model.training) == ("v2m_nano", SPEC, False)
    assert frozen.source == str(folder)
    assert open_frozen(str(folder / "model.safetensors"), "digits").sha256 == frozen.sha256
    with torch.no_grad():
        frozen.model.norm.weight[0] += 1
    save(frozen.model, ClassificationEvaluator(["red", "green", "blue"], SPEC), folder)
    assert open_frozen(str(folder), "digits").sha256 != frozen.sha256


def test_an_untrained_model_is_always_the_same_and_made_for_the_data():
    before = torch.random.get_rng_state()
    first, second = (open_frozen("random/v2m_nano", "digits") for _ in range(2))
    assert torch.equal(before, torch.random.get_rng_state())
    assert first.sha256 == second.sha256
    assert (first.spec.img_size, first.spec.in_chans) == ((8, 8), 1)


def test_weights_of_timm_keep_their_own_images(monkeypatch, tmp_path):
    source = timm.create_model("resnet10t").eval()
    torch.save(source.state_dict(), tmp_path / "weights.pth")
    create = timm.create_model

    def from_file(name, **kwargs):
        return create(name, pretrained_cfg_overlay=dict(file=str(tmp_path / "weights.pth")), **kwargs)

    monkeypatch.setattr(timm, "create_model", from_file)
    frozen = open_frozen("timm/resnet10t", "digits")
    assert (frozen.spec.img_size, frozen.spec.in_chans, frozen.source) == ((176, 176), 3, "timm/resnet10t")
    images = torch.randn(2, 3, 40, 40)
    assert torch.equal(pooled_features(frozen.model, images), pooled_features(source, images))


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("random/v2m_nanno", "'v2m_nanno' is no model, nearest: v2m_nano"),
        ("timm/v2m_nano", "timm has no weights of v2m_nano"),
        ("/no/run", "/no/run: no model there"),
        ("random/", "random: no model there"),
    ],
)
def test_what_is_no_model_is_said(source, words):
    with pytest.raises(ValueError, match=words):
        open_frozen(source, "digits")


@pytest.mark.parametrize("name", ["v2m_nano", "resnet10t", "vit_tiny_patch16_224", "mobilenetv3_small_050"])
def test_features_are_what_the_head_takes(name):
    args = dict(img_size=32) if name.startswith(("v2m", "vit")) else {}
    model = timm.create_model(name, num_classes=5, **args).eval()
    images = torch.randn(2, 3, 32, 32)
    features = pooled_features(model, images)
    assert features.shape == (2, model.head_hidden_size)
    with torch.no_grad():
        assert torch.allclose(model.get_classifier()(features), model(images), atol=1e-5)
    assert pooled_features(model, torch.empty(0)).shape == (0, 0)


def test_maps_that_are_not_pooled_are_said():
    model = timm.create_model("resnet10t", global_pool="", num_classes=0)
    with pytest.raises(ValueError, match=r"model: its features have shape \[1, 512, 1, 1\], expected"):
        pooled_features(model.eval(), torch.randn(1, 3, 32, 32))
