"""The Triton kernels with rates of shape ``[D]``; run in the interpreter by ``test_triton``."""

import pytest
import torch

from tests.ops.kernels import test_triton, test_triton_2d
from tests.ops.kernels.test_triton import (
    SENSES,
    assert_close,
    check_pass,
    check_scan,
    conv_inputs,
    expected_scan,
)
from tests.ops.kernels.test_triton_2d import check as check_scan_2d
from v2m.ops.directional.arguments import PassInputs

pytest.importorskip("triton")

# The powers that states decay by: all of a tile, and not.
STATES = [1, 2, 3, 8, 16, 17, 64]


def scan_inputs(*args, **kwargs):
    s = test_triton.scan_inputs(*args, **kwargs)
    return s._replace(A=s.A[:, 0].contiguous())


def scan_2d_inputs(*args, **kwargs):
    s = test_triton_2d.scan_inputs(*args, **kwargs)
    return s._replace(A_row=s.A_row[:, 0].contiguous(), A_col=s.A_col[:, 0])


@pytest.mark.parametrize(("axis", "reverse"), SENSES)
def test_scan(kernels, device, axis, reverse):
    check_scan(kernels, scan_inputs((2, 2, 5), device, axis=axis, reverse=reverse))


@pytest.mark.parametrize("states", STATES)
def test_states_of_a_scan(kernels, device, states):
    check_scan(kernels, scan_inputs((1, 1, 3), device, 35, states))


@pytest.mark.parametrize("absent", ["B", "C", "D", "gate", "delta_bias"])
def test_scan_without(kernels, device, absent):
    # 3 states are padded to 4, which must not show where B and C are ones.
    check_scan(kernels, scan_inputs((1, 2, 3), device)._replace(**{absent: None}))


def test_scan_of_more_lines_than_programs(kernels, device, monkeypatch):
    monkeypatch.setattr(kernels, "SCAN_PROGRAMS", 2)
    check_scan(kernels, scan_inputs((3, 3, 3), device))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_low_precision(kernels, device, dtype):
    s = scan_inputs((1, 3, 3), device, dtype=dtype)
    check_scan(kernels, s._replace(A=s.A.to(dtype)))


def test_extreme_steps_and_rates(kernels, device):
    s = scan_inputs((1, 1, 9), device, channels=9, states=9, rank=0)
    delta = torch.logspace(-6, 2, 9)[torch.randperm(9)].view(1, 1, 9, 1).expand(1, 1, 9, 9).to(device)
    A = -torch.logspace(-4, 4, 9).to(device)
    check_scan(kernels, s._replace(delta=delta, A=A, delta_bias=None, delta_softplus=False))


@pytest.mark.filterwarnings("ignore:overflow")  # of a power that is not chosen
def test_growing_states(kernels, device):
    # A power that no state has, here the fourth, would be infinite.
    s = scan_inputs((1, 1, 2), device, rank=0)._replace(delta_bias=None, delta_softplus=False)
    s = s._replace(delta=torch.ones_like(s.delta), A=torch.full_like(s.A, 25.0))
    assert_close(kernels.scan_forward(s), expected_scan(s, s.u)[0], "y")


@pytest.mark.parametrize("sweeps", [None, 1])
def test_scan_2d(kernels, device, sweeps):
    check_scan_2d(kernels, scan_2d_inputs((2, 3, 2), device, sweeps=sweeps, corner=(True, False)))


@pytest.mark.parametrize("states", STATES)
def test_states_of_a_scan_2d(kernels, device, states):
    check_scan_2d(kernels, scan_2d_inputs((1, 2, 3), device, 5, states))


@pytest.mark.parametrize("selects", ["B", "C"])
def test_pass(kernels, device, selects):
    x, weight, bias = conv_inputs((1, 2, 3), device)
    s = scan_inputs((1, 2, 3), device)
    projection = torch.randn(2 + 3, 5, device=device)
    parameters = (weight, bias, projection, s.delta_weight, s.delta_bias, s.A, s.D)
    p = PassInputs(x, s.gate, *parameters, selects, "row", False)
    check_pass(kernels, p)
