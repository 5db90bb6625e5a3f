import pytest
import torch
from timm.layers import Attention

from tests.helpers import assert_close
from v2m.layers import AttentionMixer

GRIDS = [(1, 1), (1, 7), (5, 3)]


@pytest.mark.parametrize("grid", GRIDS)
def test_equals_timms_over_the_flattened_grid(grid):
    mixer, plain = AttentionMixer(16, num_heads=4).double(), Attention(16, 4, qkv_bias=True).double()
    plain.load_state_dict(mixer.attn.state_dict())
    x = torch.randn(2, *grid, 16, dtype=torch.float64)
    assert_close(mixer(x), plain(x.reshape(2, -1, 16)).reshape(x.shape), "float64")


@pytest.mark.parametrize("move", [lambda x: x.flip(1), lambda x: x.flip(2), lambda x: x.transpose(1, 2)])
@pytest.mark.parametrize("grid", GRIDS)
def test_does_not_know_where_a_cell_lies(grid, move):
    mixer, x = AttentionMixer(16, num_heads=4).double(), torch.randn(2, *grid, 16, dtype=torch.float64)
    assert_close(mixer(move(x)), move(mixer(x)), "float64")


@pytest.mark.parametrize(
    ("dim", "heads"), [(1, 1), (16, 1), (32, 1), (48, 1), (64, 2), (112, 2), (192, 6), (384, 12)]
)
def test_default_number_of_heads(dim, heads):
    assert AttentionMixer(dim).attn.num_heads == heads


def test_out_proj_is_the_last_projection():
    mixer = AttentionMixer(8)
    assert mixer.out_proj is mixer.attn.proj
    assert not any("out_proj" in name for name in mixer.state_dict())


def test_reset_leaves_the_parameters_alone():
    mixer = AttentionMixer(8)
    before = {name: value.clone() for name, value in mixer.state_dict().items()}
    mixer.reset_scan_parameters()
    assert all(torch.equal(value, before[name]) for name, value in mixer.state_dict().items())


def test_every_parameter_has_a_gradient():
    mixer = AttentionMixer(8, num_heads=2)
    mixer(torch.randn(2, 5, 3, 8)).square().sum().backward()
    assert all(parameter.grad.abs().max() > 0 for parameter in mixer.parameters())


def test_autocast():
    mixer, x = AttentionMixer(32), torch.randn(2, 5, 3, 32)
    with torch.autocast("cpu", torch.bfloat16):
        y = mixer(x)
    assert y.dtype == torch.bfloat16
    assert_close(y, mixer(x), "bfloat16 layers")


def test_strided_input():
    mixer, x = AttentionMixer(8).double(), torch.randn(2, 3, 5, 8, dtype=torch.float64)
    assert_close(mixer(x.mT.contiguous().mT), mixer(x), "float64")


def test_exported_with_any_size():
    mixer, x = AttentionMixer(32), torch.randn(3, 2, 9, 32)
    sizes = {i: torch.export.Dim(name, min=1, max=64) for i, name in enumerate(("batch", "height", "width"))}
    program = torch.export.export(mixer, (torch.randn(2, 3, 4, 32),), dynamic_shapes=(sizes,))
    assert_close(program.module()(x), mixer(x), "compiled")


@pytest.mark.parametrize("name", ["dim", "num_heads"])
@pytest.mark.parametrize("value", [0, -1, 1.5, "x"])
def test_bad_size(name, value):
    with pytest.raises(
        ValueError, match=rf"AttentionMixer: {name} is {value!r}, expected a positive integer"
    ):
        AttentionMixer(**({"dim": 8} | {name: value}))


def test_bad_number_of_heads():
    with pytest.raises(ValueError, match=r"AttentionMixer: num_heads is 3, expected a divisor of dim = 8"):
        AttentionMixer(8, num_heads=3)


@pytest.mark.parametrize("shape", [(2, 12, 8), (2, 3, 4, 7)])
def test_bad_input(shape):
    with pytest.raises(ValueError, match=r"AttentionMixer: input has shape .* expected \[B, H, W, 8\]"):
        AttentionMixer(8)(torch.zeros(shape))
