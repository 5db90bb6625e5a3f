import pytest
import torch
from torch import nn

from tests.helpers import assert_close
from v2m.layers import V2MBlock, V2MMixer


class Double(nn.Module):
    """A mixer that is easy to follow."""

    def forward(self, x):
        return 2 * x


def root_mean_square_norm(x, weight):
    return x / (x.square().mean(-1, keepdim=True) + 1e-5).sqrt() * weight


@pytest.mark.parametrize("scale", [1.0, 1e-3])
def test_formula(scale):
    block = V2MBlock(6, Double()).double()
    block.norm.weight.data.uniform_(0.5, 2)
    x = scale * torch.randn(2, 3, 4, 6, dtype=torch.float64)
    assert_close(block(x), x + 2 * root_mean_square_norm(x, block.norm.weight), "float64")


def test_gradients():
    block = V2MBlock(4, V2MMixer(4, d_state=2)).double()
    x = torch.randn(1, 2, 3, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(block, (x,))


@pytest.mark.parametrize("residual", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("weights", [torch.float32, torch.bfloat16])
def test_residual_stream_keeps_its_dtype(residual, weights):
    block = V2MBlock(8, V2MMixer(8, d_state=2)).to(weights)
    assert block(torch.randn(1, 3, 2, 8, dtype=residual)).dtype == residual


def test_residual_stream_is_not_rounded_to_the_weights_dtype():
    block = V2MBlock(8, Double()).bfloat16()
    block.norm.weight.data.zero_()
    x = torch.randn(1, 3, 2, 8)
    assert torch.equal(block(x), x)


def test_autocast_keeps_a_float32_residual_stream():
    block = V2MBlock(8, V2MMixer(8, d_state=2))
    with torch.autocast("cpu", torch.bfloat16):
        assert block(torch.randn(1, 3, 2, 8)).dtype == torch.float32


def test_no_drop_path_module_without_a_rate():
    assert isinstance(V2MBlock(8, Double()).drop_path, nn.Identity)


def test_drop_path_drops_whole_samples_and_scales_the_rest():
    block = V2MBlock(6, Double(), drop_path=0.25)
    x = torch.randn(400, 2, 3, 6)
    mixed = 2 * root_mean_square_norm(x, 1.0)
    block.eval()
    assert_close(block(x), x + mixed, "float32")
    block.train()
    added = block(x) - x
    dropped = (added == 0).all(-1).all(-1).all(-1)
    assert 60 < dropped.sum() < 140  # 100 expected, 8.7 the standard deviation
    assert_close(added[~dropped], mixed[~dropped] / 0.75, "float32")
