"""The mixers with one convolution before all scans: two passes, the exact recurrence, sweeps towards it."""

import itertools
from functools import partial

import pytest
import torch
import torch.nn.functional as F

from tests.helpers import assert_close
from v2m.layers import CoupledScan, Directions, ExactMixer, SharedConvMixer

GRIDS = [(1, 1), (1, 5), (4, 5), (3, 3)]
KINDS = dict(conv=SharedConvMixer, exact=ExactMixer, sweeps=partial(ExactMixer, sweeps=2))
every_kind = pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)


def mixer_and_map(kind, height=4, width=5, dim=6, batch=2, dtype=torch.float64, **settings):
    """A mixer away from its special initial values, and an input."""
    mixer = kind(dim, **{"d_state": 3} | settings).to(dtype)
    with torch.no_grad():
        for parameter in mixer.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return mixer, torch.randn(batch, height, width, dim, dtype=dtype)


def coupled_from_top_left(scan, s, row, col):
    """The equations of the exact recurrence, cell by cell; row and col name the parameters of h1 and h2."""
    batch, height, width, channels = s.shape
    projected = {}
    for suffix in ("", "_2"):
        low, weights, gate = getattr(scan, f"x_proj{suffix}")(s).split(scan.sizes, dim=-1)
        dt = F.softplus(getattr(scan, f"dt_proj{suffix}")(low))
        A = -getattr(scan, f"A{suffix}_log").exp()
        g = torch.sigmoid(gate + getattr(scan, f"coupling{suffix}_bias"))
        projected[suffix] = dt[..., None], torch.exp(dt[..., None] * A), weights, g[..., None, :]
    B, C = projected[""][2][..., None, :], projected["_2"][2][..., None, :]
    (dt1, e1, _, g1), (dt2, e2, _, g2) = projected[row], projected[col]
    h1, h2 = torch.zeros(2, batch, height + 1, width + 1, channels, B.shape[-1], dtype=s.dtype)
    y = torch.zeros_like(s)
    for i in range(height):
        for j in range(width):
            at, left, up = (slice(None), i, j), (slice(None), i + 1, j), (slice(None), i, j + 1)
            drive = B[at] * s[at][..., None]
            here = (slice(None), i + 1, j + 1)
            h1[here] = e1[at] * ((1 - g1[at]) * h1[left] + g1[at] * h2[left]) + dt1[at] * drive
            h2[here] = e2[at] * (g2[at] * h1[up] + (1 - g2[at]) * h2[up]) + dt2[at] * drive
            y[at] = (C[at] * (h1[here] + h2[here])).sum(-1)
    return y + scan.D * s


@torch.no_grad()
def coupled_mixer(mixer, x):
    """The exact mixer on turned maps: quarter k puts corner k in the top left."""
    inner, z = mixer.in_proj(x).chunk(2, dim=-1)
    s = F.silu(mixer.conv2d(inner.permute(0, 3, 1, 2)).permute(0, 2, 3, 1))
    total = sum(
        torch.rot90(coupled_from_top_left(mixer.scans[0], torch.rot90(s, k, (1, 2)), "", "_2"), -k, (1, 2))
        for k in range(4)
    )
    return mixer.out_proj(total / 2 * F.silu(z))


@pytest.mark.parametrize("grid", GRIDS)
def test_the_exact_recurrence_equals_its_equations(grid):
    mixer, x = mixer_and_map(ExactMixer, *grid)
    assert_close(mixer(x), coupled_mixer(mixer, x), "float64")


@pytest.mark.parametrize("grid", [(3, 4), (1, 5)])
def test_sweeps_converge_to_the_exact_recurrence(grid):
    mixer, x = mixer_and_map(ExactMixer, *grid)
    exact, errors = mixer(x), []
    for sweeps in range(sum(grid) - 1):
        other = ExactMixer(6, d_state=3, sweeps=sweeps).double()
        other.load_state_dict(mixer.state_dict())
        errors.append((other(x) - exact).abs().max() / exact.abs().max())
    assert errors[0] > 1e-4
    assert errors[-1] < 1e-14
    assert all(after <= before + 1e-15 for before, after in itertools.pairwise(errors))


@every_kind
@pytest.mark.parametrize(
    "settings",
    [
        {},
        dict(use_gate=False, use_norm=True, use_axis_parameters=True),
        dict(directions="one_corner"),
    ],
)
def test_every_parameter_has_a_gradient(kind, settings):
    mixer, x = mixer_and_map(kind, dtype=torch.float32, **settings)
    y = mixer(x)
    assert y.shape == x.shape
    (y * torch.randn_like(y)).sum().backward()
    for key, parameter in mixer.named_parameters():
        assert parameter.grad is not None, key
        assert parameter.grad.isfinite().all(), key
        assert parameter.grad.any(), key


@every_kind
@pytest.mark.parametrize("grid", GRIDS)
def test_turning_the_map_turns_the_output(grid, kind):
    """All four corners, one set of parameters: nothing but the convolution knows a direction."""
    mixer, x = mixer_and_map(kind, *grid)
    with torch.no_grad():
        mixer.conv2d.weight.copy_(
            mixer.conv2d.weight.mean((2, 3), keepdim=True).expand_as(mixer.conv2d.weight)
        )
    assert_close(mixer(torch.rot90(x, 1, (1, 2))), torch.rot90(mixer(x), 1, (1, 2)), "float64")


def test_a_single_gate_is_another_function_with_a_gradient_everywhere():
    mixer, x = mixer_and_map(SharedConvMixer)
    other = SharedConvMixer(6, d_state=3, single_gate=True).double()
    other.load_state_dict(mixer.state_dict())
    y = other(x)
    assert not torch.allclose(mixer(x), y)
    (y * torch.randn_like(y)).sum().backward()
    assert all(parameter.grad.any() for parameter in other.parameters())


def test_parameters_by_axis():
    keys = set(SharedConvMixer(6, use_axis_parameters=True).state_dict())
    assert {f"scans.{i}.A_log" for i in (0, 1)} <= keys
    one_axis = SharedConvMixer(6, use_axis_parameters=True, directions="corners_rows_first").state_dict()
    assert not any(key.startswith("scans.1") for key in one_axis)
    mixer, x = mixer_and_map(SharedConvMixer, use_axis_parameters=True)
    mixer.scans[1].load_state_dict(mixer.scans[0].state_dict())
    shared, _ = mixer_and_map(SharedConvMixer)
    shared.load_state_dict({k: v for k, v in mixer.state_dict().items() if not k.startswith("scans.1")})
    assert_close(mixer(x), shared(x), "float64")


def test_norm_and_gate():
    mixer, x = mixer_and_map(SharedConvMixer, use_gate=False, use_norm=True)
    seen = []
    mixer.out_proj.register_forward_pre_hook(lambda _, args: seen.append(args[0].detach()))
    torch.nn.init.ones_(mixer.norm.weight)
    torch.nn.init.zeros_(mixer.norm.bias)
    mixer(x)
    assert_close(seen[0].mean(-1), torch.zeros(2, 4, 5), "float64")
    assert mixer.in_proj.weight.shape == (12, 6)
    assert mixer_and_map(SharedConvMixer)[0].in_proj.weight.shape == (24, 6)


@every_kind
def test_autocast(kind):
    mixer, x = mixer_and_map(kind, dim=32, dtype=torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        y = mixer(x)
    assert_close(y, mixer(x), "bfloat16 layers")


def test_initial_coupling_is_half_open():
    scan = CoupledScan(4, d_state=3, dt_rank=2, sweeps=None)
    assert not scan.coupling_bias.any()
    assert not scan.coupling_2_bias.any()


@every_kind
@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (dict(directions="released"), "directions is 'released', which V2MMixer alone has"),
        (dict(directions="up"), "directions is 'up', expected one of 'corners'"),
        (dict(dt_rank=0), "dt_rank is 0, expected a positive integer"),
        (dict(d_state=0), "d_state is 0, expected a positive integer"),
    ],
)
def test_wrong_settings(kind, settings, message):
    owner = getattr(kind, "func", kind).__name__
    with pytest.raises(ValueError, match=f"{owner}: {message}"):
        kind(8, **settings)


def test_wrong_settings_of_one():
    with pytest.raises(ValueError, match="sweeps is -1, expected an integer from 0 or None"):
        ExactMixer(8, sweeps=-1)
    with pytest.raises(ValueError, match="single_gate is True, expected False with use_gate=False"):
        SharedConvMixer(8, use_gate=False, single_gate=True)


def test_wrong_input():
    with pytest.raises(ValueError, match=r"input has shape \[2, 4, 5, 3\], expected \[B, H, W, 6\]"):
        mixer_and_map(SharedConvMixer)[0](torch.zeros(2, 4, 5, 3))


@pytest.mark.parametrize(("directions", "seen"), [(Directions.ONE_CORNER, 6), (Directions.CORNERS, 20)])
def test_what_a_cell_sees(directions, seen):
    """The corner's quadrant, and one cell further by the convolution."""
    mixer, x = mixer_and_map(ExactMixer, directions=directions)
    with torch.no_grad():
        mixer.conv2d.weight[:, :, [0, 0, 0, 1, 1, 2, 2, 2], [0, 1, 2, 0, 2, 0, 1, 2]] = 0
    x.requires_grad_()
    mixer(x)[:, 1, 2].square().sum().backward()
    assert int((x.grad != 0).any(-1).all(0).sum()) == seen
