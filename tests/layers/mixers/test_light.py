import itertools

import pytest
import torch
import torch.nn.functional as F

from tests.helpers import assert_close
from v2m import selective_scan
from v2m.layers import LightMixer

GRIDS = [(1, 1), (1, 7), (5, 3)]


def mixer_and_map(height=5, width=3, dim=8, batch=2, dtype=torch.float64, **settings):
    """A mixer of several heads away from its special initial values, and an input."""
    mixer = LightMixer(dim, **{"d_state": 3, "head_dim": 4} | settings).to(dtype)
    with torch.no_grad():
        for parameter in mixer.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return mixer, torch.randn(batch, height, width, dim, dtype=dtype)


def four_corners(mixer, x):
    """The mixer by one-directional scans, row then column, from each of the four corners.

    ``selective_scan`` decays by the whole length of the cell it enters. Weighting what is read by half a
    cell's decay, and what is written by its inverse, makes that half a cell on leaving and half on entering.
    """
    parameters = {name: value.detach() for name, value in mixer.named_parameters()}
    x, *gates = mixer.in_proj(x).split(mixer.conv2d.in_channels, dim=-1)
    u = F.silu(mixer.conv2d(x.movedim(3, 1)).movedim(1, 3))
    channels = u.shape[-1]
    sizes = 2 * [mixer.heads] + 4 * [mixer.d_state]
    row_delta, col_delta, row_B, row_C, col_B, col_C = mixer.x_proj(u).split(sizes, dim=-1)
    row_log, col_log = parameters["A_log"].chunk(2)

    def to_channels(per_head):
        return per_head.repeat_interleave(channels // mixer.heads, dim=-1)

    def one_sense(u, delta, A_log, B, C, axis, reverse):
        dt, rate = to_channels(F.softplus(delta)), to_channels(A_log.exp())
        A = -rate[:, None].expand(channels, mixer.d_state)
        half = torch.exp(-dt * rate / 2)
        own = (B * C).sum(-1, keepdim=True) * dt * u
        return selective_scan(half * u, dt, A, B, C, axis=axis, reverse=reverse) / half - own / 2

    y = parameters["D"] * u
    for left, up in itertools.product((False, True), repeat=2):
        across = one_sense(u, row_delta, row_log, row_B, row_C, "row", left)
        y = y + one_sense(across, col_delta, col_log, col_B, col_C, "col", up)
    return mixer.out_proj(y * F.silu(gates[0]) if mixer.use_gate else y)


@pytest.mark.parametrize(
    "settings", [{}, dict(expand=2, d_state=1, head_dim=2), dict(head_dim=8, use_gate=False)]
)
@pytest.mark.parametrize("grid", GRIDS)
def test_equals_scans_from_four_corners(grid, settings):
    mixer, x = mixer_and_map(*grid, **settings)
    assert_close(mixer(x), four_corners(mixer, x), "float64")


@pytest.mark.parametrize("axes", [(1,), (2,), (1, 2)])
@pytest.mark.parametrize("grid", GRIDS)
def test_flips_with_the_map_if_the_convolution_does(grid, axes):
    mixer, x = mixer_and_map(*grid)
    with torch.no_grad():
        mixer.conv2d.weight.add_(mixer.conv2d.weight.flip([axis + 1 for axis in axes]))
    assert_close(mixer(x.flip(axes)), mixer(x).flip(axes), "float64")


def test_every_cell_sees_the_whole_map():
    mixer, x = mixer_and_map(4, 5)
    x.requires_grad_()
    for i, j in itertools.product(range(4), range(5)):
        (gradient,) = torch.autograd.grad(mixer(x)[:, i, j].square().sum(), x)
        assert (gradient != 0).any(-1).all(), f"cell {i}, {j}"


def test_samples_do_not_mix():
    mixer, x = mixer_and_map(batch=3)
    other = x.clone()
    other[1] += 1
    assert (mixer(x) != mixer(other)).flatten(1).any(1).tolist() == [False, True, False]


def test_initial_scan_parameters():
    mixer = LightMixer(256, d_state=4, head_dim=1)
    assert (mixer.A_log == 0).all()
    assert (mixer.D == 1).all()
    steps, weights = mixer.x_proj.bias.split([512, 16])
    assert 0.02 <= F.softplus(steps).min() < 0.03
    assert 0.4 < F.softplus(steps).max() <= 0.5 + 1e-6
    assert (weights == 0.5).all()  # <B, C> is 1


def test_gradients():
    mixer, x = mixer_and_map(2, 3, dim=2, batch=1, d_state=2, head_dim=1)
    names = [name for name, _ in mixer.named_parameters()]

    def mix(x, *values):
        return torch.func.functional_call(mixer, dict(zip(names, values, strict=True)), x)

    inputs = [x, *mixer.parameters()]
    assert torch.autograd.gradcheck(mix, [t.detach().requires_grad_() for t in inputs])


@pytest.mark.parametrize("grid", GRIDS)
def test_every_parameter_has_a_gradient(grid):
    mixer, x = mixer_and_map(*grid)
    mixer(x).square().sum().backward()
    without = {name for name, parameter in mixer.named_parameters() if not parameter.grad.abs().sum()}
    assert without <= {"A_log"}  # which counts from two cells on
    assert ("A_log" in without) == (grid == (1, 1))


@pytest.mark.parametrize("scale", [1.0, 1e3])
def test_autocast(scale):
    mixer, x = LightMixer(32), scale * torch.randn(2, 9, 7, 32)
    with torch.autocast("cpu", torch.bfloat16):
        y = mixer(x)
    assert y.dtype == torch.bfloat16
    y.float().sum().backward()
    assert y.isfinite().all()
    assert all(parameter.grad.isfinite().all() for parameter in mixer.parameters())
    if scale == 1.0:
        assert_close(y, mixer(x), "bfloat16 layers")


def test_bfloat16_parameters():
    mixer, x = LightMixer(32), torch.randn(2, 9, 7, 32)
    expected = mixer(x)
    y = mixer.bfloat16()(x.bfloat16())
    assert y.dtype == torch.bfloat16
    assert_close(y, expected, "bfloat16 layers")
    y.sum().backward()
    assert all(parameter.grad.dtype == torch.bfloat16 for parameter in mixer.parameters())


@pytest.mark.parametrize("step", [1e-6, 1e4])
def test_extreme_steps(step):
    mixer, x = mixer_and_map(1, 40, dtype=torch.float32)
    with torch.no_grad():
        mixer.x_proj.bias[: 2 * mixer.heads] = step if step > 1 else torch.tensor(step).expm1().log()
    y = mixer(x)
    y.sum().backward()
    assert y.isfinite().all()
    assert all(parameter.grad.isfinite().all() for parameter in mixer.parameters())


def test_compiled():
    mixer, x = LightMixer(32), torch.randn(2, 5, 3, 32)
    compiled = torch.compile(mixer, backend="aot_eager", fullgraph=True)
    assert_close(compiled(x), mixer(x), "compiled")


@pytest.fixture(scope="module")
def exported():
    """A mixer and the program exported from it, for any size of batch and grid."""
    torch.manual_seed(0)
    mixer, x = mixer_and_map(dim=32, dtype=torch.float32)
    sizes = {i: torch.export.Dim(name, min=1, max=64) for i, name in enumerate(("batch", "height", "width"))}
    return mixer.eval(), torch.export.export(mixer.eval(), (x,), dynamic_shapes=(sizes,))


def test_exported_to_pytorchs_own_operators(exported):
    mixer, program = exported
    operators = [n.target for n in program.graph.nodes if isinstance(n.target, torch._ops.OpOverload)]
    assert {operator.namespace for operator in operators} == {"aten"}
    for grid in GRIDS:
        x = torch.randn(3, *grid, 32)
        assert_close(program.module()(x), mixer(x), "compiled", f"grid {grid}")


@pytest.mark.filterwarnings("ignore:.isinstance.treespec, LeafSpec:FutureWarning")  # by PyTorch 2.11
def test_exported_to_onnx(exported, tmp_path):
    import onnxruntime as runtime

    mixer, program = exported
    torch.onnx.export(program, f=tmp_path / "mixer.onnx", dynamo=True, verbose=False)
    session = runtime.InferenceSession(tmp_path / "mixer.onnx", providers=["CPUExecutionProvider"])
    for grid in GRIDS:
        x = torch.randn(3, *grid, 32)
        (y,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
        assert_close(torch.from_numpy(y), mixer(x), "compiled", f"grid {grid}")


def test_built_on_the_meta_device():
    with torch.device("meta"):
        mixer = LightMixer(32)
    mixer.to_empty(device="cpu")
    for layer in mixer.children():
        layer.reset_parameters()
    mixer.reset_scan_parameters()
    assert mixer(torch.randn(1, 2, 3, 32)).isfinite().all()


def test_strided_input():
    mixer, x = mixer_and_map()
    assert_close(mixer(x.mT.contiguous().mT), mixer(x), "float64")


def test_empty_batch():
    mixer, x = mixer_and_map(batch=0)
    assert mixer(x).shape == x.shape


@pytest.mark.parametrize("name", ["dim", "d_state", "expand", "head_dim"])
@pytest.mark.parametrize("value", [0, -1, 1.5, "x"])
def test_bad_size(name, value):
    settings = {"dim": 8, "head_dim": 4} | {name: value}
    with pytest.raises(ValueError, match=rf"LightMixer: {name} is {value!r}, expected a positive integer"):
        LightMixer(**settings)


def test_bad_head_dim():
    with pytest.raises(ValueError, match=r"head_dim is 32, expected a divisor of expand \* dim = 48"):
        LightMixer(48, head_dim=32)


@pytest.mark.parametrize(("dim", "heads"), [(64, 2), (48, 3), (8, 1), (33, 33)])
def test_default_heads(dim, heads):
    assert LightMixer(dim).heads == heads


@pytest.mark.parametrize("shape", [(2, 12, 8), (2, 3, 4, 7)])
def test_bad_input(shape):
    with pytest.raises(ValueError, match=r"LightMixer: input has shape .* expected \[B, H, W, 8\]"):
        LightMixer(8, head_dim=4)(torch.zeros(shape))


def test_repr_shows_the_settings():
    assert "d_state=5, heads=2, use_gate=True" in repr(LightMixer(8, d_state=5, head_dim=4))
