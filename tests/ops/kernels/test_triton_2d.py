"""The Triton kernels of the two-dimensional scan; run in the interpreter by ``test_triton``."""

import itertools

import pytest
import torch

from tests.ops.inputs import VIEWS
from tests.ops.kernels.test_triton import assert_close, noise
from v2m.ops.scan_2d.arguments import Scan2dInputs
from v2m.ops.scan_2d.reference import selective_scan_2d_reference

pytest.importorskip("triton")

TENSORS = Scan2dInputs._fields[:11]
CORNERS = list(itertools.product((False, True), repeat=2))
SHAPES = [(1, 1, 1), (1, 1, 5), (1, 5, 1), (1, 4, 3), (2, 2, 3)]


def scan_inputs(shape, device, channels=3, states=2, dtype=torch.float32, sweeps=None, corner=(False, False)):
    """All arguments of a scan at random; what is projected from one map is split from one."""
    shared = noise(*shape, 2 * channels + 6 * states, device=device, dtype=dtype)
    delta_row, delta_col, *shared = shared.split([channels] * 2 + [states] * 6, dim=-1)
    B_row, B_col, C_row, C_col, *coupling = shared
    return Scan2dInputs(
        noise(*shape, channels, device=device, dtype=dtype),
        delta_row,
        delta_col,
        -noise(channels, states, device=device).abs() - 0.05,
        -noise(channels, states, device=device).abs() - 0.05,
        B_row,
        B_col,
        C_row,
        C_col,
        *(x.sigmoid() for x in coupling),
        True,
        *corner,
        sweeps,
    )


def check(kernels, s, grad=None):
    """Compare output and gradients with those of the reference in float64."""
    grad = noise(*s.u.shape, device=s.u.device, dtype=s.u.dtype) if grad is None else grad
    y, grads = kernels.scan_2d_forward(s), kernels.scan_2d_backward(grad, s)
    leaves = {name: getattr(s, name).detach().double().requires_grad_() for name in TENSORS}
    expected_y = selective_scan_2d_reference(s._replace(**leaves))
    expected = torch.autograd.grad(
        expected_y, list(leaves.values()), grad.double(), allow_unused=True, materialize_grads=True
    )
    assert y.dtype == s.u.dtype
    assert_close(y, expected_y, "y")
    tensors = [getattr(grads, name) for name in TENSORS]
    assert len({value.untyped_storage().data_ptr() for value in tensors}) == len(tensors)
    for name, value, expected_value in zip(TENSORS, tensors, expected, strict=True):
        assert value.dtype == (s.u.dtype if name == "u" else torch.float32), name
        assert value.is_contiguous(), name
        assert_close(value, expected_value, name)


@pytest.mark.parametrize("corner", CORNERS)
@pytest.mark.parametrize("sweeps", [None, 1])
def test_scan(kernels, device, sweeps, corner):
    check(kernels, scan_inputs((1, 3, 2), device, sweeps=sweeps, corner=corner))


@pytest.mark.parametrize("sweeps", [None, 0, 2])
@pytest.mark.parametrize("shape", SHAPES)
def test_shapes(kernels, device, shape, sweeps):
    check(kernels, scan_inputs(shape, device, sweeps=sweeps))


@pytest.mark.parametrize(("channels", "states"), [(1, 1), (35, 1), (5, 3), (3, 16), (33, 17), (2, 65)])
def test_sizes(kernels, device, channels, states):
    check(kernels, scan_inputs((1, 3, 2), device, channels, states))


@pytest.mark.parametrize("shape", [(1, 5, 1), (1, 5, 3), (1, 3, 4)])
@pytest.mark.parametrize(("rows", "sweeps"), [(1, 1), (2, None)])
def test_more_rows_than_lanes(kernels, device, monkeypatch, rows, sweeps, shape):
    from v2m.ops.kernels import triton_2d

    monkeypatch.setattr(triton_2d, "ROWS", rows)
    check(kernels, scan_inputs(shape, device, sweeps=sweeps, corner=(True, False)))


@pytest.mark.parametrize("cells", [1, 8])
def test_little_memory(kernels, device, monkeypatch, cells):
    from v2m.ops.kernels import triton_2d

    # Room for the states of no image, or of two of four items in the backward.
    monkeypatch.setattr(triton_2d, "STATES_BYTES", cells * 4 * 2 * 2 * 32)
    check(kernels, scan_inputs((2, 2, 2), device, channels=35))


@pytest.mark.parametrize("sweeps", [None, 1])
def test_without_softplus(kernels, device, sweeps):
    s = scan_inputs((1, 2, 3), device, sweeps=sweeps)
    steps = dict(delta_row=s.delta_row.abs(), delta_col=s.delta_col.abs())
    check(kernels, s._replace(delta_softplus=False, **steps))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_low_precision(kernels, device, dtype):
    check(kernels, scan_inputs((1, 3, 3), device, dtype=dtype, corner=(True, False)))


def test_mixed_dtypes(kernels, device):
    s = scan_inputs((1, 3, 2), device, corner=(False, True))
    half, brain = torch.float16, torch.bfloat16
    s = s._replace(u=s.u.to(brain), delta_row=s.delta_row.to(half), A_col=s.A_col.to(brain))
    s = s._replace(B_col=s.B_col.to(brain), C_row=s.C_row.to(half), coupling_row=s.coupling_row.to(brain))
    check(kernels, s, grad=torch.randn(1, 3, 2, 3, device=device))


@pytest.mark.parametrize("view", VIEWS)
def test_views(kernels, device, view):
    s = scan_inputs((2, 2, 3), device, corner=(True, True))
    s = s._replace(**{name: view(getattr(s, name)) for name in TENSORS})
    check(kernels, s, view(noise(2, 2, 3, 3, device=device)))


def test_many_sweeps_are_the_coupled_states(kernels, device):
    s = scan_inputs((1, 2, 3), device)
    swept = s._replace(sweeps=100)
    assert_close(kernels.scan_2d_forward(swept), kernels.scan_2d_forward(s).double(), "y")
    check(kernels, swept)


@pytest.mark.parametrize("softplus", [False, True])
def test_extreme_steps_and_rates(kernels, device, softplus):
    s = scan_inputs((1, 3, 3), device, channels=9, states=9)
    steps = torch.logspace(-6, 2, 9, dtype=torch.float64)[torch.randperm(9)].view(1, 3, 3, 1)
    if softplus:
        steps = steps + torch.log(-torch.expm1(-steps))
    delta, A = steps.float().expand(1, 3, 3, 9).to(device), -torch.logspace(-4, 4, 9).expand(9, 9).to(device)
    check(kernels, s._replace(delta_row=delta, delta_col=delta, A_row=A, A_col=A, delta_softplus=softplus))


@pytest.mark.parametrize("sweeps", [None, 1])
def test_nan_reaches_what_depends_on_it(kernels, device, sweeps):
    s = scan_inputs((1, 3, 3), device, channels=2, sweeps=sweeps)
    s.u[0, 1, 1, 0] = torch.nan
    y = kernels.scan_2d_forward(s)
    assert torch.equal(y.isnan(), selective_scan_2d_reference(s).isnan())
    grads = kernels.scan_2d_backward(torch.ones_like(y), s)
    assert grads.A_row[0].isnan().all()
    assert not grads.A_row[1].isnan().any()


def test_growing_states(kernels, device):
    # exp(dt * A) of a cell outside of the map would be infinite.
    s = scan_inputs((1, 3, 2), device)
    small = dict(delta_row=s.delta_row - 20, delta_col=s.delta_col - 20)
    check(kernels, s._replace(A_row=300 * s.A_row.abs(), A_col=300 * s.A_col.abs(), **small))


def test_no_images(kernels, device):
    s = scan_inputs((0, 2, 3), device)
    grads = kernels.scan_2d_backward(s.u, s)
    assert kernels.scan_2d_forward(s).shape == grads.delta_row.shape == s.u.shape
    assert grads.B_row.shape == s.B_row.shape
    assert grads.A_row.shape == s.A_row.shape
    assert grads.A_row.eq(0).all()
