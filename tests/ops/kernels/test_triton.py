"""The Triton kernels, on a GPU as compiled, or on the CPU in Triton's interpreter.

Triton decides when it is first imported whether to interpret, and timm imports it. So without a GPU the tests
run in a second process: ``TRITON_INTERPRET=1 pytest tests/ops/kernels/test_triton.py``, and likewise those of
``test_triton_2d.py`` and ``test_triton_geometric.py``.
"""

import itertools
import os
import subprocess
import sys

import pytest
import torch
import torch.nn.functional as F

from tests.ops.kernels.conftest import INTERPRETS
from v2m.ops.directional.arguments import PassInputs
from v2m.ops.kernels import pytorch
from v2m.ops.scan.arguments import ScanInputs
from v2m.ops.scan.reference import selective_scan_reference

pytest.importorskip("triton")

SENSES = list(itertools.product(("row", "col"), (False, True)))
OPTIONAL = ("B", "C", "D", "gate", "delta_bias")
SHAPES = [(1, 1, 1), (1, 1, 7), (1, 7, 1), (1, 5, 3), (2, 2, 1)]


@pytest.mark.skipif(INTERPRETS, reason="this is the second process")
@pytest.mark.skipif(torch.cuda.is_available(), reason="the compiled kernels are tested")
def test_in_the_interpreter():
    files = [__file__, *(__file__.replace("triton.py", f"triton_{name}.py") for name in ("2d", "geometric"))]
    command = [sys.executable, "-m", "pytest", "-q", "-m", "not gpu", "-p", "no:cacheprovider", *files]
    environment = os.environ | {"TRITON_INTERPRET": "1"}
    result = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr


def noise(*shape, device, dtype=torch.float32):
    """Normal numbers, with NaN before and after in memory, to show what is read outside."""
    values = torch.randn(shape).to(device, dtype)
    memory = values.new_full((values.numel() + 1024,), torch.nan)
    memory[512:-512] = values.flatten()
    return memory[512:-512].view(shape)


def scan_inputs(shape, device, channels=5, states=3, rank=2, dtype=torch.float32, axis="row", reverse=False):
    """All arguments of a scan at random; ``rank`` 0 for step sizes of every channel."""
    shared = noise(*shape, max(rank, channels) + 2 * states, device=device, dtype=dtype)
    delta, B, C = shared.split((max(rank, channels), states, states), dim=-1)
    return ScanInputs(
        noise(*shape, channels, device=device, dtype=dtype),
        delta[..., :rank] if rank else delta,
        -noise(channels, states, device=device).abs() - 0.05,
        B,
        C,
        noise(channels, device=device),
        noise(*shape, channels, device=device, dtype=dtype),
        noise(channels, device=device) - 2,
        True,
        axis,
        reverse,
        noise(channels, rank, device=device) if rank else None,
    )


def expected_scan(s, grad):
    """Output and gradients in float64."""
    s = s._replace(
        **{name: value.detach().double() for name, value in s._asdict().items() if torch.is_tensor(value)}
    )
    pre = s.delta if s.delta_weight is None else F.linear(s.delta, s.delta_weight)
    s = s._replace(delta=pre, delta_weight=None)
    leaves = {
        name: getattr(s, name).requires_grad_()
        for name in ("u", "delta", "A", "B", "C", "D", "gate")
        if getattr(s, name) is not None
    }
    y = selective_scan_reference(s._replace(gate=None))
    y = y if s.gate is None else y * s.gate
    return y, dict(zip(leaves, torch.autograd.grad(y, list(leaves.values()), grad.double()), strict=True))


def assert_close(actual, expected, what):
    """Equal but for rounding: of the result to its dtype, and of sums in float32."""
    assert actual.shape == expected.shape
    actual, expected, dtype = actual.double(), expected.detach(), actual.dtype
    limit = 0.0 if dtype == torch.float32 else torch.finfo(dtype).eps * expected.abs()
    if expected.numel():
        limit = limit + 1e-5 * expected.abs().max()
    error = (actual - expected).abs()
    assert bool((error <= limit).all()), f"{what}: off by {error.max():.3g} of {expected.abs().max():.3g}"


def check_scan(kernels, s, grad=None):
    grad = noise(*s.u.shape, device=s.u.device, dtype=s.u.dtype) if grad is None else grad
    y, grads = kernels.scan_forward(s), kernels.scan_backward(grad, s)
    expected_y, expected_grads = expected_scan(s, grad)
    assert y.dtype == s.u.dtype
    assert_close(y, expected_y, "y")
    for name in ("u", "delta", "A", "B", "C", "D", "gate"):
        value = getattr(grads, name)
        if getattr(s, name) is None:
            assert value is None
            continue
        is_map = name in ("u", "gate")
        assert value.dtype == (getattr(s, name).dtype if is_map else torch.float32), name
        assert value.is_contiguous()
        assert_close(value, expected_grads[name], name)


@pytest.mark.parametrize(("axis", "reverse"), SENSES)
@pytest.mark.parametrize("shape", SHAPES)
def test_scan(kernels, device, shape, axis, reverse):
    check_scan(kernels, scan_inputs(shape, device, axis=axis, reverse=reverse))


@pytest.mark.parametrize(
    ("channels", "states", "rank"),
    [(1, 1, 1), (35, 1, 5), (70, 3, 0), (35, 16, 1), (1, 16, 5), (35, 20, 0), (3, 33, 17)],
)
def test_scan_at_other_sizes(kernels, device, channels, states, rank):
    check_scan(kernels, scan_inputs((1, 1, 3), device, channels, states, rank))


@pytest.mark.parametrize(
    "absent",
    [*((name,) for name in OPTIONAL), ("B", "C"), OPTIONAL],
    ids=" ".join,
)
def test_scan_without(kernels, device, absent):
    # 3 states are padded to 4, which must not show where B and C are ones.
    check_scan(kernels, scan_inputs((1, 2, 3), device)._replace(**dict.fromkeys(absent)))


@pytest.mark.parametrize("rank", [0, 2])
def test_scan_without_softplus(kernels, device, rank):
    s = scan_inputs((1, 2, 3), device, rank=rank)
    positive = {
        name: value.abs()
        for name in ("delta", "delta_weight", "delta_bias")
        if (value := getattr(s, name)) is not None
    }
    check_scan(kernels, s._replace(delta_softplus=False, **positive))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_scan_in_low_precision(kernels, device, dtype):
    check_scan(kernels, scan_inputs((1, 3, 3), device, dtype=dtype, axis="col"))


def test_scan_of_mixed_dtypes(kernels, device):
    s = scan_inputs((1, 3, 3), device)
    half, brain = torch.float16, torch.bfloat16
    s = s._replace(
        u=s.u.to(brain), delta=s.delta.to(half), B=s.B.to(brain), D=s.D.to(brain), gate=s.gate.to(half)
    )
    check_scan(
        kernels,
        s._replace(delta_weight=s.delta_weight.to(brain)),
        grad=torch.randn(1, 3, 3, 5, device=device),
    )


@pytest.mark.parametrize(("axis", "reverse"), SENSES)
def test_scan_of_views(kernels, device, axis, reverse):
    s = scan_inputs((2, 2, 3), device, axis=axis, reverse=reverse)
    channels_first = torch.randn(2, 3, 2, 3, device=device).permute(0, 2, 3, 1)
    gate = torch.randn(2, 2, 3, 10, device=device).chunk(2, dim=-1)[1]
    transposed = s.u.transpose(1, 2).contiguous().transpose(1, 2)
    grad = torch.ones((), device=device).expand(2, 2, 3, 5)
    check_scan(kernels, s._replace(u=transposed, gate=gate, C=channels_first), grad)


@pytest.mark.parametrize(("axis", "reverse"), [("row", True), ("col", False)])
@pytest.mark.parametrize("length", [12, 13])
def test_scan_with_checkpoints(kernels, device, monkeypatch, length, axis, reverse):
    monkeypatch.setattr(kernels, "WHOLE_LINE", 2)
    shape = (1, 2, length) if axis == "row" else (1, length, 2)
    check_scan(kernels, scan_inputs(shape, device, axis=axis, reverse=reverse))


def test_scan_of_a_long_line(kernels, device):
    check_scan(kernels, scan_inputs((1, 1, 2 * kernels.WHOLE_LINE + 3), device))


def test_scan_of_more_lines_than_programs(kernels, device, monkeypatch):
    monkeypatch.setattr(kernels, "SCAN_PROGRAMS", 2)
    check_scan(kernels, scan_inputs((3, 3, 3), device))


@pytest.mark.parametrize("softplus", [False, True])
def test_scan_of_extreme_steps_and_rates(kernels, device, softplus):
    steps = torch.logspace(-6, 2, 9, dtype=torch.float64)
    rates = -torch.logspace(-4, 4, 9)
    s = scan_inputs((1, 1, 9), device, channels=9, states=9, rank=0)
    delta = steps[torch.randperm(9)].view(1, 1, 9, 1).expand(1, 1, 9, 9)
    if softplus:
        delta = delta + torch.log(-torch.expm1(-delta))
    check_scan(
        kernels,
        s._replace(
            delta=delta.float().to(device),
            A=rates.expand(9, 9).contiguous().to(device),
            delta_bias=None,
            delta_softplus=softplus,
        ),
    )


def test_softplus_keeps_its_digits(kernels, device):
    delta = torch.linspace(-60, 60, 97).view(1, 1, 1, 97).to(device)
    s = ScanInputs(
        torch.ones_like(delta), delta, -torch.ones(97, 1, device=device), *(None,) * 5, True, "row", False
    )
    exact = torch.logaddexp(delta.double(), torch.zeros((), dtype=torch.float64, device=device))
    error = (kernels.scan_forward(s).double() - exact).abs() / exact
    # The exponential of a number is as precise as that number times log2(e).
    limit = 4e-7 + 8e-8 * delta.abs()
    assert (error <= limit).all()
    grads = kernels.scan_backward(torch.ones_like(delta), s)
    slope = torch.sigmoid(delta.double())
    assert ((grads.delta.double() - slope).abs() <= limit * slope).all()


def test_scan_of_no_images(kernels, device):
    s = scan_inputs((0, 2, 3), device)
    grads = kernels.scan_backward(s.u, s)
    assert kernels.scan_forward(s).shape == grads.delta.shape == s.u.shape
    assert grads.A.eq(0).all()


def expected_conv(x, weight, bias, axis, reverse, grad):
    """Output and gradients in float64."""
    x, weight, bias = leaves = [value.detach().double().requires_grad_() for value in (x, weight, bias)]
    dim = 2 if axis == "row" else 1
    line = x.flip(dim) if reverse else x
    past, length = weight.shape[1] - 1, line.shape[dim]
    zeros = line.new_zeros([past if i == dim else size for i, size in enumerate(line.shape)])
    padded = torch.cat([zeros, line], dim)
    y = F.silu(bias + sum(weight[:, k] * padded.narrow(dim, k, length) for k in range(past + 1)))
    y = y.flip(dim) if reverse else y
    return y, torch.autograd.grad(y, leaves, grad.double())


def check_conv(kernels, x, weight, bias, axis="row", reverse=False, grad=None):
    grad = noise(*x.shape, device=x.device, dtype=x.dtype) if grad is None else grad
    y = kernels.conv_silu_forward(x, weight, bias, axis, reverse)
    grads = kernels.conv_silu_backward(grad, x, weight, bias, axis, reverse)
    expected_y, expected_grads = expected_conv(x, weight, bias, axis, reverse, grad)
    assert y.dtype == grads[0].dtype == x.dtype
    assert_close(y, expected_y, "y")
    assert len({value.untyped_storage().data_ptr() for value in grads}) == len(grads)
    for name, value, expected in zip(("x", "weight", "bias"), grads, expected_grads, strict=True):
        assert name == "x" or value.dtype == torch.float32
        assert value.is_contiguous()
        assert_close(value, expected, name)


def conv_inputs(shape, device, channels=5, taps=4, dtype=torch.float32):
    x = noise(*shape, channels, device=device, dtype=dtype)
    return x, noise(channels, taps, device=device), noise(channels, device=device)


@pytest.mark.parametrize(("axis", "reverse"), SENSES)
@pytest.mark.parametrize("shape", SHAPES)
def test_conv(kernels, device, shape, axis, reverse):
    check_conv(kernels, *conv_inputs(shape, device), axis, reverse)


@pytest.mark.parametrize(("axis", "reverse"), SENSES)
def test_conv_of_several_segments(kernels, device, axis, reverse):
    length = 2 * kernels.SEGMENT + 1
    shape = (1, 2, length) if axis == "row" else (1, length, 2)
    check_conv(kernels, *conv_inputs(shape, device), axis, reverse)


@pytest.mark.parametrize("channels", [1, 70])
@pytest.mark.parametrize("taps", [1, 2, 3, 7])
def test_conv_at_other_sizes(kernels, device, channels, taps):
    check_conv(kernels, *conv_inputs((1, 1, 10), device, channels, taps))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_conv_in_low_precision(kernels, device, dtype):
    x, weight, bias = conv_inputs((1, 3, 4), device, dtype=dtype)
    check_conv(kernels, x, weight.to(torch.bfloat16), bias, grad=torch.randn(1, 3, 4, 5, device=device))


@pytest.mark.parametrize(("axis", "reverse"), SENSES)
def test_conv_of_views(kernels, device, axis, reverse):
    _, weight, bias = conv_inputs((2, 3, 4), device)
    x = torch.randn(2, 4, 3, 10, device=device).transpose(1, 2).chunk(2, dim=-1)[1]
    check_conv(
        kernels, x, weight, bias, axis, reverse, torch.randn(2, 3, 5, 4, device=device).transpose(2, 3)
    )


def test_conv_of_more_lines_than_programs(kernels, device, monkeypatch):
    monkeypatch.setattr(kernels, "CONV_PROGRAMS", 2)
    check_conv(kernels, *conv_inputs((3, 3, 9), device))


def test_conv_of_large_values(kernels, device):
    x, weight, bias = conv_inputs((1, 1, 9), device)
    check_conv(kernels, 1000 * x, weight, bias)


def test_conv_of_no_images(kernels, device):
    inputs = conv_inputs((0, 2, 3), device)
    dx, dweight, dbias = kernels.conv_silu_backward(inputs[0], *inputs, "row", False)
    assert kernels.conv_silu_forward(*inputs, "row", False).shape == dx.shape == inputs[0].shape
    assert dweight.eq(0).all()
    assert dbias.eq(0).all()


def check_pass(kernels, p):
    """Output and gradients of a pass against those of PyTorch's kernels."""
    grad = torch.randn_like(p.x)
    assert_close(kernels.pass_forward(p), pytorch.pass_forward(p).double(), "y")
    expected = pytorch.pass_backward(grad, p)._asdict()
    for name, value in kernels.pass_backward(grad, p)._asdict().items():
        if torch.is_tensor(value):
            assert_close(value, expected[name].double(), name)


@pytest.mark.parametrize("selects", ["B", "C"])
def test_pass(kernels, device, selects):
    x, weight, bias = conv_inputs((1, 2, 3), device)
    s = scan_inputs((1, 2, 3), device)
    p = PassInputs(
        x,
        s.gate,
        weight,
        bias,
        torch.randn(2 + 3, 5, device=device),
        s.delta_weight,
        s.delta_bias,
        s.A,
        s.D,
        selects,
        "row",
        False,
    )
    check_pass(kernels, p)
