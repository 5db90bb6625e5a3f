import pytest
import torch
import torch.nn.functional as F

from tests.helpers import assert_close
from v2m.layers import Directions, TwoPasses, V2MMixer


def passes_and_maps(height, width, channels=6, dtype=torch.float64, d_conv=3):
    passes = TwoPasses(channels, d_state=3, d_conv=d_conv, dt_rank=2).to(dtype)
    with torch.no_grad():
        for parameter in passes.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return passes, *torch.randn(2, 2, height, width, channels, dtype=dtype)


@pytest.mark.parametrize("directions", [Directions.CORNERS, Directions.CORNERS_ROWS_FIRST])
@pytest.mark.parametrize("grid", [(4, 6), (5, 7), (2, 2), (1, 9), (7, 3)])
def test_windows_are_scanned_as_maps_of_their_own(grid, directions):
    """Windows that the grid cuts are scanned as if the cells beyond it were not there."""
    passes, x, gate = passes_and_maps(*grid)
    window = 3
    expected = torch.zeros_like(x)
    for i in range(0, grid[0], window):
        for j in range(0, grid[1], window):
            cells = (slice(None), slice(i, i + window), slice(j, j + window))
            expected[cells] = passes(directions.paths, x[cells], gate[cells])
    assert_close(passes(directions.paths, x, gate, window), expected, "float64")


def test_windows_as_large_as_the_grid_change_nothing():
    passes, x, gate = passes_and_maps(4, 5)
    paths = Directions.CORNERS.paths
    whole = passes(paths, x, gate)
    assert torch.equal(passes(paths, x, gate, window=5), whole)
    assert not torch.allclose(passes(paths, x, gate, window=4), whole)


@pytest.mark.parametrize("grid", [(5, 7), (3, 3)])
def test_gradients_of_windows(grid):
    passes, x, gate = passes_and_maps(*grid, channels=2)
    paths = Directions.CORNERS.paths

    def function(x, gate, *parameters):
        return passes(paths, x, gate, window=2)

    inputs = (x.requires_grad_(), gate.requires_grad_(), *passes.parameters())
    assert torch.autograd.gradcheck(function, inputs, fast_mode=True)


@pytest.mark.parametrize("window", [None, 2])
def test_a_single_gate_is_applied_to_the_sum(window):
    passes, x, gate = passes_and_maps(4, 5)
    paths = Directions.CORNERS.paths
    ungated = passes(paths, x, torch.ones_like(gate), window)
    gated_twice = passes(paths, x, gate, window)
    passes.single_gate = True
    gated_once = passes(paths, x, gate, window)
    assert_close(gated_once, ungated * gate, "float64")
    assert not torch.allclose(gated_once, gated_twice)


def test_without_a_convolution_the_input_of_a_scan_is_silu():
    passes, x, gate = passes_and_maps(4, 5, d_conv=0)
    like, *_ = passes_and_maps(4, 5, d_conv=1)
    like.load_state_dict(passes.state_dict(), strict=False)
    with torch.no_grad():
        for conv in (like.conv1d, like.conv1d_2):
            conv.weight.fill_(1.0)
            conv.bias.zero_()
    paths = Directions.CORNERS.paths
    assert not any("conv" in key for key in passes.state_dict())
    assert_close(passes(paths, x, gate), like(paths, x, gate), "float64")


@pytest.mark.parametrize("is_first_local", [False, True])
def test_a_mixer_with_windows_walks_every_other_path_in_them(is_first_local):
    mixer = V2MMixer(8, d_state=2, window=2, is_first_local=is_first_local).double()
    x = torch.randn(2, 5, 4, 8, dtype=torch.float64)
    inner, z = mixer.in_proj(x).chunk(2, dim=-1)
    paths, gate = Directions.CORNERS.paths, F.silu(z)
    whole, local = (paths[1::2], paths[::2]) if is_first_local else (paths[::2], paths[1::2])
    y = TwoPasses.forward(mixer, whole, inner, gate) + mixer.local(local, inner, gate, 2)
    assert_close(mixer(x), mixer.out_proj(y / 2), "float64")
    assert {path.first.axis for path in whole} != {path.first.axis for path in local}


def test_the_scans_of_windows_have_parameters_of_their_own():
    keys = set(V2MMixer(8, window=2).state_dict()) - set(V2MMixer(8).state_dict())
    assert keys == {f"local.{key}" for key in TwoPasses(16, 16, 4, 1).state_dict()}
