import pytest
import torch
import torch.nn.functional as F

from tests.helpers import assert_close
from v2m.layers import RasterMixer

GRIDS = [(1, 1), (1, 7), (5, 3)]


def mixer_and_map(height=5, width=3, dim=6, batch=2, dtype=torch.float64, **settings):
    """A mixer away from its special initial values, and an input."""
    mixer = RasterMixer(dim, **{"d_state": 3} | settings).to(dtype)
    with torch.no_grad():
        for parameter in mixer.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return mixer, torch.randn(batch, height, width, dim, dtype=dtype)


def partner(name):
    """The parameter that does in the other sense what this one does."""
    first, dot, rest = name.partition(".")
    pairs = dict(conv1d="conv1d_b", x_proj="x_proj_b", dt_proj="dt_proj_b", A_log="A_b_log", D="D_b")
    pairs |= {backward: forward for forward, backward in pairs.items()}
    return pairs.get(first, first) + dot + rest


def plain_mixer(mixer, x):
    """Vim's equations, one cell after the other, backwards on a turned line."""
    parameters = dict(mixer.named_parameters())
    batch, height, width, _ = x.shape
    line, z = mixer.in_proj(x.reshape(batch, height * width, -1)).chunk(2, dim=-1)

    def one_sense(u, get):
        taps, D = get("conv1d.weight")[:, 0], get("D")
        h, ys = torch.zeros(*D.shape, mixer.d_state, dtype=x.dtype), []
        for t in range(u.shape[1]):
            seen = [taps[:, -1 - k] * u[:, t - k] for k in range(min(mixer.d_conv, t + 1))]
            s = F.silu(sum(seen) + get("conv1d.bias"))
            low, B, C = (s @ get("x_proj.weight").mT).split([mixer.dt_rank, *2 * [mixer.d_state]], dim=-1)
            dt = F.softplus(low @ get("dt_proj.weight").mT + get("dt_proj.bias"))[..., None]
            h = torch.exp(-dt * get("A_log").exp()) * h + dt * s[..., None] * B[:, None]
            ys.append((h * C[:, None]).sum(-1) + D * s)
        return torch.stack(ys, dim=1)

    forward = one_sense(line, parameters.__getitem__)
    backward = one_sense(line.flip(1), lambda name: parameters[partner(name)]).flip(1)
    y = (forward + backward) / 2 * F.silu(z)
    return (y @ mixer.out_proj.weight.mT).reshape(x.shape)


@pytest.mark.parametrize("settings", [{}, dict(d_conv=1, expand=1, dt_rank=3), dict(d_conv=6, d_state=1)])
@pytest.mark.parametrize("grid", GRIDS)
def test_equals_the_equations(grid, settings):
    mixer, x = mixer_and_map(*grid, **settings)
    assert_close(mixer(x), plain_mixer(mixer, x), "float64")


@pytest.mark.parametrize("grid", GRIDS)
def test_reversed_line_with_swapped_senses_reverses_the_output(grid):
    mixer, x = mixer_and_map(*grid)
    swapped = {partner(name): value.clone() for name, value in mixer.state_dict().items()}
    expected = mixer(x).flip(1, 2)
    mixer.load_state_dict(swapped)
    assert_close(mixer(x.flip(1, 2)), expected, "float64")


def test_only_the_raster_order_counts():
    mixer, x = mixer_and_map(4, 6)
    assert_close(mixer(x.view(2, 3, 8, -1)), mixer(x).view(2, 3, 8, -1), "float64")


def test_parameter_names_and_shapes():
    C, D, N, R, K = 16, 48, 5, 7, 3
    one_sense = {
        "conv1d.weight": (D, 1, K),
        "conv1d.bias": (D,),
        "x_proj.weight": (R + 2 * N, D),
        "dt_proj.weight": (D, R),
        "dt_proj.bias": (D,),
        "A_log": (D, N),
        "D": (D,),
    }
    expected = {"in_proj.weight": (2 * D, C), "out_proj.weight": (C, D)}
    expected |= one_sense | {partner(name): shape for name, shape in one_sense.items()}
    mixer = RasterMixer(C, d_state=N, d_conv=K, expand=3, dt_rank=R)
    assert {name: tuple(value.shape) for name, value in mixer.state_dict().items()} == expected


@pytest.mark.parametrize(
    ("A_log", "D", "dt_proj"), [("A_log", "D", "dt_proj"), ("A_b_log", "D_b", "dt_proj_b")]
)
def test_initial_scan_parameters_of_both_senses(A_log, D, dt_proj):
    mixer = RasterMixer(256, d_state=5)
    assert_close(getattr(mixer, A_log).exp(), torch.arange(1.0, 6.0).expand(512, 5), "float32")
    assert (getattr(mixer, D) == 1).all()
    steps = F.softplus(getattr(mixer, dt_proj).bias)
    assert 1e-4 <= steps.min() < 2e-3
    assert 5e-2 < steps.max() <= 0.1 + 1e-6


def test_gradients():
    mixer, x = mixer_and_map(2, 2, dim=2, batch=1, d_state=2, d_conv=2)
    names = [name for name, _ in mixer.named_parameters()]

    def mix(x, *values):
        return torch.func.functional_call(mixer, dict(zip(names, values, strict=True)), x)

    inputs = [x, *mixer.parameters()]
    assert torch.autograd.gradcheck(mix, [t.detach().requires_grad_() for t in inputs])


@pytest.mark.parametrize("grid", GRIDS)
def test_float32_kernels(grid):
    mixer, x = mixer_and_map(*grid, dim=16, d_state=16)
    mixer(x).square().sum().backward()
    expected = {name: parameter.grad for name, parameter in mixer.named_parameters()}
    y = mixer(x)
    mixer.zero_grad()
    mixer, x = mixer.float(), x.float()
    assert_close(mixer(x), y, "float32")
    mixer(x).square().sum().backward()
    for name, parameter in mixer.named_parameters():
        assert_close(parameter.grad, expected[name], "float32 gradient", name)


def test_autocast():
    mixer, x = RasterMixer(32), torch.randn(2, 5, 3, 32)
    with torch.autocast("cpu", torch.bfloat16):
        y = mixer(x)
    assert y.dtype == torch.bfloat16
    assert_close(y, mixer(x), "bfloat16 layers")
    y.float().sum().backward()
    assert all(parameter.grad.isfinite().all() for parameter in mixer.parameters())


def test_bfloat16_parameters():
    mixer, x = mixer_and_map(dim=32, dtype=torch.float32, d_state=16)
    expected = mixer(x)
    y = mixer.bfloat16()(x.bfloat16())
    assert y.dtype == torch.bfloat16
    assert_close(y, expected, "bfloat16 layers")


def test_compiled():
    mixer, x = RasterMixer(8, d_state=2), torch.randn(2, 5, 3, 8)
    compiled = torch.compile(mixer, backend="aot_eager", fullgraph=True)
    assert_close(compiled(x), mixer(x), "compiled")


def test_exported_with_any_size():
    mixer, x = RasterMixer(8), torch.randn(3, 2, 9, 8)
    sizes = {i: torch.export.Dim(name, min=1, max=64) for i, name in enumerate(("batch", "height", "width"))}
    program = torch.export.export(mixer, (torch.randn(2, 3, 4, 8),), dynamic_shapes=(sizes,))
    assert_close(program.module()(x), mixer(x), "compiled")


def test_strided_input():
    mixer, x = mixer_and_map()
    assert_close(mixer(x.mT.contiguous().mT), mixer(x), "float64")


def test_empty_batch():
    mixer, x = mixer_and_map(batch=0)
    assert mixer(x).shape == x.shape


@pytest.mark.parametrize("name", ["dim", "d_state", "d_conv", "expand", "dt_rank"])
@pytest.mark.parametrize("value", [0, -1, 1.5, "x"])
def test_bad_size(name, value):
    settings = {"dim": 8, "dt_rank": 1} | {name: value}
    with pytest.raises(ValueError, match=rf"RasterMixer: {name} is {value!r}, expected a positive integer"):
        RasterMixer(**settings)


@pytest.mark.parametrize("shape", [(2, 12, 8), (2, 3, 4, 7)])
def test_bad_input(shape):
    with pytest.raises(ValueError, match=r"RasterMixer: input has shape .* expected \[B, H, W, 8\]"):
        RasterMixer(8)(torch.zeros(shape))


def test_repr_shows_the_settings():
    assert "d_state=5, dt_rank=3" in repr(RasterMixer(8, d_state=5, dt_rank=3))
