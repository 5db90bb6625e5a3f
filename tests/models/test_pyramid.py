import pytest
import timm
import torch
import torch.nn.functional as F

import v2m
from tests.helpers import assert_close
from v2m.models import SimpleFeaturePyramid


def pyramid(patch_size=16, **settings):
    return v2m.create_model(
        "v2m_tiny_patch16_224",
        depth=2,
        embed_dim=32,
        img_size=64,
        patch_size=patch_size,
        features_only=True,
        feature_cls=SimpleFeaturePyramid,
        **settings,
    )


def test_the_stride_of_the_model_is_its_last_normalised_map():
    model, x = pyramid(), torch.randn(2, 3, 64, 96)
    features = model(x)
    (last,) = model.model.forward_intermediates(x, indices=1, norm=True, intermediates_only=True)
    assert torch.equal(features[2], last)
    assert_close(features[3], F.max_pool2d(last, 2), "float32")
    assert model.feature_info.channels() == [8, 16, 32, 32]


@pytest.mark.parametrize(
    ("out_indices", "strides"), [((1, 3), [8, 32]), ([-1], [32]), (2, [16, 32]), (4, [4, 8, 16, 32])]
)
def test_chosen_maps(out_indices, strides):
    model = pyramid(out_indices=out_indices)
    assert model.feature_info.reduction() == strides
    assert [64 // feature.shape[-1] for feature in model(torch.randn(1, 3, 64, 64))] == strides


def test_no_head_is_kept():
    assert isinstance(pyramid().model.head, torch.nn.Identity)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (dict(patch_size=12), "patch_size is 12, expected a power of two up to 32"),
        (dict(patch_size=(8, 16)), r"patch_size is \(8, 16\), expected a power of two"),
        (dict(out_indices=(0, 4)), r"out_indices is \(0, 4\), expected some of 0 to 3"),
    ],
)
def test_wrong_settings(settings, message):
    with pytest.raises(ValueError, match=f"SimpleFeaturePyramid: {message}"):
        pyramid(**settings)


def test_hierarchical_models_need_none():
    with pytest.raises(ValueError, match="model is HierarchicalV2M, expected a plain V2M"):
        v2m.create_model("v2m_lite_nano", features_only=True, feature_cls=SimpleFeaturePyramid)


def test_takes_weights_of_the_model(tmp_path):
    """The pyramid's own parameters are new; those of the model are loaded."""
    model = timm.create_model("v2m_nano", depth=2)
    timm.models.save_for_hf(model, tmp_path, safe_serialization=True)
    features = timm.create_model(
        f"local-dir:{tmp_path}", pretrained=True, features_only=True, feature_cls=SimpleFeaturePyramid
    )
    assert torch.equal(features.model.blocks[1].mixer.A_log, model.blocks[1].mixer.A_log)
    assert torch.equal(features.model.patch_embed.proj.weight, model.patch_embed.proj.weight)
