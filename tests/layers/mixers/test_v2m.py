import itertools
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F

from tests.helpers import assert_close
from v2m.layers import Directions, V2MMixer
from v2m.ops import directional_pass

GRIDS = [(1, 1), (1, 5), (4, 5), (3, 3)]


def mixer_and_map(height=4, width=5, dim=8, batch=2, dtype=torch.float64, **settings):
    """A mixer away from its special initial values, and an input."""
    mixer = V2MMixer(dim, **{"d_state": 3} | settings).to(dtype)
    with torch.no_grad():
        for parameter in mixer.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return mixer, torch.randn(batch, height, width, dim, dtype=dtype)


@pytest.fixture
def passes(monkeypatch):
    """Tensors and settings of every call to the directional pass."""
    calls = []

    def spy(*args, **kwargs):
        calls.append((args, kwargs))
        return directional_pass(*args, **kwargs)

    monkeypatch.setattr("v2m.layers.two_passes.directional_pass", spy)
    return calls


@pytest.mark.parametrize(
    ("settings", "C", "D", "N", "R", "K"),
    [
        (dict(dim=32), 32, 64, 16, 2, 4),
        (dict(dim=33), 33, 66, 16, 3, 4),
        (dict(dim=16, d_state=5, d_conv=3, expand=3, dt_rank=7), 16, 48, 5, 7, 3),
    ],
)
def test_parameter_names_and_shapes(settings, C, D, N, R, K):
    one_pass = {
        "conv1d{}.weight": (D, 1, K),
        "conv1d{}.bias": (D,),
        "x_proj{}.weight": (R + N, D),
        "dt_proj{}.weight": (D, R),
        "dt_proj{}.bias": (D,),
        "A{}_log": (D, N),
        "D{}": (D,),
    }
    expected = {"in_proj.weight": (2 * D, C), "out_proj.weight": (C, D)}
    expected |= {name.format(which): shape for which in ("", "_2") for name, shape in one_pass.items()}
    assert {k: tuple(v.shape) for k, v in V2MMixer(**settings).state_dict().items()} == expected


@pytest.mark.parametrize(
    ("A_log", "D", "dt_proj"), [("A_log", "D", "dt_proj"), ("A_2_log", "D_2", "dt_proj_2")]
)
def test_initial_scan_parameters_of_both_passes(A_log, D, dt_proj):
    mixer = V2MMixer(256, d_state=5)
    rates = getattr(mixer, A_log).exp()
    assert_close(rates, torch.arange(1.0, 6.0).expand(512, 5), "float32")
    assert (getattr(mixer, D) == 1).all()

    layer = getattr(mixer, dt_proj)
    steps = F.softplus(layer.bias)
    assert 1e-4 <= steps.min() < 2e-3
    assert 5e-2 < steps.max() <= 0.1 + 1e-6
    assert 0.8e-2 < steps.median() < 1.25e-2  # log-uniform in 0.001..0.1: the median is 0.01
    bound = mixer.dt_rank**-0.5
    assert 0.95 * bound < layer.weight.abs().max() <= bound


@pytest.mark.parametrize(
    ("name", "fan_in"),
    [("in_proj", 64), ("out_proj", 128), ("x_proj", 128), ("x_proj_2", 128), ("conv1d", 4), ("conv1d_2", 4)],
)
def test_initial_projections_are_pytorch_defaults(name, fan_in):
    layer = getattr(V2MMixer(64), name)
    bound = fan_in**-0.5
    assert 0.9 * bound < layer.weight.abs().max() <= bound + 1e-6
    assert abs(layer.weight.mean()) < 0.1 * bound


def test_passes_start_from_different_random_numbers():
    mixer = V2MMixer(16)
    for name in ("conv1d", "x_proj", "dt_proj"):
        assert not torch.equal(getattr(mixer, name).weight, getattr(mixer, f"{name}_2").weight)
    assert not torch.equal(mixer.dt_proj.bias, mixer.dt_proj_2.bias)


def plain_mixer(mixer, x):
    """The equations for the paper's four corners, on turned maps, with torch's own 1-D convolution."""

    def one_pass(x, z, conv, x_proj, dt_proj, A_log, D, is_first):
        batch, height, width, channels = x.shape
        lines = F.pad(x.reshape(batch * height, width, channels).mT, (conv.weight.shape[-1] - 1, 0))
        s = F.silu(F.conv1d(lines, conv.weight, conv.bias, groups=channels)).mT.reshape(x.shape)
        low, weights = x_proj(s).split([mixer.dt_rank, mixer.d_state], dim=-1)
        dt = F.softplus(dt_proj(low))
        h, ys = torch.zeros(batch, height, channels, mixer.d_state, dtype=x.dtype), []
        for t in range(width):
            drive = (dt[:, :, t] * s[:, :, t])[..., None]
            drive = drive * weights[:, :, t, None] if is_first else drive
            h = torch.exp(-dt[:, :, t, :, None] * A_log.exp()) * h + drive
            ys.append((h if is_first else h * weights[:, :, t, None]).sum(-1))
        y = torch.stack(ys, dim=2) + D * s
        return y if mixer.single_gate else y * F.silu(z)

    total = 0.0
    for k in range(4):
        u, z = torch.rot90(mixer.in_proj(x), k, (1, 2)).chunk(2, dim=-1)
        u = one_pass(u, z, mixer.conv1d, mixer.x_proj, mixer.dt_proj, mixer.A_log, mixer.D, True)
        u, z = u.transpose(1, 2), z.transpose(1, 2)
        v = one_pass(u, z, mixer.conv1d_2, mixer.x_proj_2, mixer.dt_proj_2, mixer.A_2_log, mixer.D_2, False)
        total = total + torch.rot90(v.transpose(1, 2), -k, (1, 2))
    z = mixer.in_proj(x).chunk(2, dim=-1)[1]
    return mixer.out_proj(total / 2 * (F.silu(z) if mixer.single_gate else 1))


@pytest.mark.parametrize(
    "settings",
    [{}, dict(d_conv=1, expand=1, dt_rank=3), dict(d_conv=6, d_state=1), dict(single_gate=True)],
)
@pytest.mark.parametrize("grid", GRIDS)
def test_equals_the_equations(grid, settings):
    mixer, x = mixer_and_map(*grid, **settings)
    assert_close(mixer(x), plain_mixer(mixer, x), "float64")


def sources(mixer, x, i, j):
    """Where the output at one cell has a gradient, as booleans over the grid."""
    x = x.clone().requires_grad_()
    mixer(x)[:, i, j].square().sum().backward()
    return (x.grad != 0).any(-1).all(0)


@pytest.mark.parametrize("k", range(4))
def test_each_path_sees_exactly_its_quadrant(k):
    mixer, x = mixer_and_map(4, 5)
    mixer.directions = SimpleNamespace(paths=Directions.CORNERS.paths[k : k + 1])
    cells = torch.arange(20).view(4, 5)
    turned = torch.rot90(cells, k, (0, 1))
    for a, b in itertools.product(range(turned.shape[0]), range(turned.shape[1])):
        i, j = divmod(int(turned[a, b]), 5)
        quadrant = torch.isin(cells, turned[: a + 1, : b + 1].flatten())
        assert torch.equal(sources(mixer, x, i, j), quadrant), f"cell {i}, {j}"


@pytest.mark.parametrize("directions", ["corners", "corners_rows_first"])
def test_all_paths_together_see_the_whole_map(directions):
    mixer, x = mixer_and_map(4, 5, directions=directions)
    for i, j in itertools.product(range(4), range(5)):
        assert sources(mixer, x, i, j).all(), f"cell {i}, {j}"


def test_samples_do_not_mix():
    mixer, x = mixer_and_map(batch=3)
    other = x.clone()
    other[1] += 1
    differs = (mixer(x) != mixer(other)).flatten(1).any(1)
    assert differs.tolist() == [False, True, False]


def turn(x, k):
    return torch.rot90(x, k, (1, 2))


@pytest.mark.parametrize("k", [1, 2, 3])
@pytest.mark.parametrize("grid", GRIDS)
def test_corners_turn_with_the_map(grid, k):
    mixer, x = mixer_and_map(*grid)
    assert_close(mixer(turn(x, k)), turn(mixer(x), k), "float64")


@pytest.mark.parametrize("axes", [(1,), (2,), (1, 2)])
@pytest.mark.parametrize("grid", GRIDS)
def test_corners_rows_first_flip_with_the_map(grid, axes):
    mixer, x = mixer_and_map(*grid, directions="corners_rows_first")
    assert_close(mixer(x.flip(axes)), mixer(x).flip(axes), "float64")


def test_the_settings_are_different_functions():
    mixer, x = mixer_and_map(3, 3)
    outputs = []
    for directions in Directions:
        mixer.directions = directions
        outputs.append(mixer(x))
    for a, b in itertools.combinations(outputs, 2):
        assert (a - b).abs().max() > 1e-3
    mixer.directions = Directions.CORNERS_ROWS_FIRST
    assert (mixer(turn(x, 1)) - turn(mixer(x), 1)).abs().max() > 1e-3


def test_released_needs_a_square_grid():
    mixer, x = mixer_and_map(4, 5, directions="released")
    with pytest.raises(ValueError, match=r"4x5 grid, expected a square one with directions='released'"):
        mixer(x)


@pytest.mark.parametrize(
    ("directions", "first"), [("corners", 4), ("corners_rows_first", 2), ("released", 4)]
)
def test_no_projection_or_pass_is_repeated(passes, directions, first):
    mixer, x = mixer_and_map(3, 3, directions=directions)
    projections = []
    for layer in (mixer.in_proj, mixer.out_proj):
        layer.register_forward_hook(lambda layer, args, y: projections.append(layer))
    mixer(x)
    assert projections == [mixer.in_proj, mixer.out_proj]
    kinds = [kwargs["selects"] for _, kwargs in passes]
    assert kinds.count("B") == first
    assert kinds.count("C") == 4
    assert len(kinds) == first + 4


@pytest.mark.parametrize(
    ("name", "value"),
    [
        (name, value)
        for name in ("dim", "d_state", "d_conv", "expand", "dt_rank")
        for value in (0, -1, 1.5, "x")
    ],
)
def test_bad_size(name, value):
    settings = {"dim": 8, "dt_rank": 1} | {name: value}
    with pytest.raises(ValueError, match=rf"V2MMixer: {name} is {value!r}, expected a positive integer"):
        V2MMixer(**settings)


@pytest.mark.parametrize("value", ["diagonal", "", None, 4])
def test_bad_directions(value):
    with pytest.raises(ValueError, match=rf"directions is {value!r}, expected one of 'corners', "):
        V2MMixer(8, directions=value)


@pytest.mark.parametrize("shape", [(2, 12, 8), (2, 3, 4, 7), (3, 4, 8), (1, 2, 3, 4, 8)])
def test_bad_input(shape):
    with pytest.raises(ValueError, match=r"V2MMixer: input has shape .* expected \[B, H, W, 8\]") as error:
        V2MMixer(8)(torch.zeros(shape))
    assert str(list(shape)) in str(error.value)


# The mixer is a polynomial of high degree in its input, so what is large is soon beyond float16. Blocks feed
# it normalised maps, of scale 1.
@pytest.mark.parametrize(
    ("dtype", "scale"),
    [(torch.bfloat16, 1.0), (torch.bfloat16, 100.0), (torch.float16, 1.0), (torch.float16, 10.0)],
)
def test_autocast(passes, dtype, scale):
    mixer = V2MMixer(32)
    x = (scale * torch.randn(2, 6, 7, 32)).requires_grad_()
    with torch.autocast("cpu", dtype):
        y = mixer(x)
    assert len(passes) == 8
    for others, named in passes:
        tensors = (*others, named["gate"])
        assert len(tensors) == 9
        assert {tensor.dtype for tensor in tensors} == {torch.float32}

    y.float().sum().backward()
    assert y.dtype == dtype
    assert y.isfinite().all()
    gradients = [x.grad, *(parameter.grad for parameter in mixer.parameters())]
    assert all(bool(gradient.isfinite().all()) for gradient in gradients)
    if scale == 1.0:
        assert_close(y, mixer(x), f"{str(dtype).removeprefix('torch.')} layers")


def test_bfloat16_parameters():
    mixer, x = mixer_and_map(6, 7, dim=32, dtype=torch.float32, d_state=16)
    expected = mixer(x)
    y = mixer.bfloat16()(x.bfloat16())
    assert y.dtype == torch.bfloat16
    assert_close(y, expected, "bfloat16 layers")
    y.sum().backward()
    assert all(parameter.grad.dtype == torch.bfloat16 for parameter in mixer.parameters())


def test_strided_input():
    mixer, x = mixer_and_map()
    strided = x.permute(3, 0, 2, 1).contiguous().permute(1, 3, 2, 0)
    assert not strided.is_contiguous()
    assert_close(mixer(strided), mixer(x), "float64")


def test_input_is_left_alone():
    mixer, x = mixer_and_map()
    before = x.clone()
    mixer(x)
    assert torch.equal(x, before)


def test_empty_batch():
    mixer, x = mixer_and_map(batch=0)
    assert mixer(x).shape == x.shape


@pytest.mark.parametrize("directions", Directions)
def test_gradients(directions):
    mixer, x = mixer_and_map(2, 2, dim=2, batch=1, d_state=2, d_conv=2, directions=directions)
    names = [name for name, _ in mixer.named_parameters()]

    def mix(x, *values):
        return torch.func.functional_call(mixer, dict(zip(names, values, strict=True)), x)

    inputs = [x, *mixer.parameters()]
    assert torch.autograd.gradcheck(mix, [t.detach().requires_grad_() for t in inputs])


def test_repr_shows_the_settings():
    text = repr(V2MMixer(8, d_state=5, dt_rank=3, directions="released"))
    assert "d_state=5, dt_rank=3, directions='released'\n" in text
    assert "directions='corners', window=7, single_gate=True\n" in repr(
        V2MMixer(8, window=7, single_gate=True)
    )


@pytest.mark.parametrize(("dim", "rank"), [(1, 1), (16, 1), (17, 2), (192, 12), (384, 24)])
def test_default_rank_of_the_step_sizes(dim, rank):
    assert V2MMixer(dim, d_state=1).dt_rank == rank
