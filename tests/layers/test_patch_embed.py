import pytest
import torch
from torch import nn

from v2m.layers import ConvPatchEmbed
from v2m.models import V2M


def embed(patch_size, dim=16, **settings):
    return ConvPatchEmbed(
        img_size=32,
        patch_size=patch_size,
        in_chans=3,
        embed_dim=dim,
        output_fmt="NHWC",
        strict_img_size=False,
        dynamic_img_pad=True,
        **settings,
    )


@pytest.mark.parametrize("patch_size", [2, 4, (8, 8), 16])
def test_grid_is_that_of_patches_of_this_size(patch_size):
    side = patch_size if isinstance(patch_size, int) else patch_size[0]
    layer = embed(patch_size)
    assert layer(torch.randn(2, 3, 32, 48)).shape == (2, 32 // side, 48 // side, 16)
    assert layer(torch.randn(1, 3, side + 1, 2)).shape == (1, 2, 1, 16)  # padded to whole patches
    assert layer.dynamic_feat_size((33, 32)) == (-(-33 // side), 32 // side)


def test_is_depthwise_separable_after_the_first_convolution():
    first, *others = (m for m in embed(8).modules() if isinstance(m, nn.Conv2d))
    assert first.groups == 1
    assert all(conv.groups == conv.in_channels or conv.kernel_size == (1, 1) for conv in others)


@pytest.mark.parametrize(
    ("patch_size", "dim", "message"),
    [
        (3, 16, "patch_size is 3, expected a power of two"),
        (1, 16, "patch_size is 1, expected a power of two"),
        ((4, 8), 16, r"patch_size is \(4, 8\), expected a power of two"),
        (16, 4, "embed_dim is 4, expected at least 8"),
    ],
)
def test_refuses_what_does_not_fit(patch_size, dim, message):
    with pytest.raises(ValueError, match=message):
        embed(patch_size, dim)


def test_input_size_can_be_set_but_not_the_size_of_patches():
    layer = embed(4)
    layer.set_input_size(img_size=(40, 20))
    assert layer.grid_size == (10, 5)
    layer.set_input_size(patch_size=4)
    with pytest.raises(ValueError, match="patch_size is 8, expected"):
        layer.set_input_size(patch_size=8)


def test_option_of_the_models():
    model = V2M(img_size=32, patch_size=4, embed_dim=16, depth=1, num_classes=3, conv_stem=True)
    assert isinstance(model.patch_embed, ConvPatchEmbed)
    model(torch.randn(2, 3, 30, 50)).sum().backward()
    assert all(p.grad is not None for p in model.parameters())
    model.reset_classifier(7)
    model.set_input_size((64, 32))
    assert model.pos_embed.shape[1:3] == (16, 8)
    assert model.eval()(torch.randn(1, 3, 64, 32)).shape == (1, 7)


def test_initialises_everything_on_a_model_from_the_meta_device():
    with torch.device("meta"):
        model = V2M(img_size=16, patch_size=4, embed_dim=8, depth=1, num_classes=2, conv_stem=True)
    model.to_empty(device="cpu")
    for tensor in model.state_dict().values():
        tensor.fill_(float("nan") if tensor.is_floating_point() else 7)
    model.init_weights()
    assert all(torch.isfinite(tensor).all() for tensor in model.state_dict().values())
