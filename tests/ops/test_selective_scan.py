import itertools
import math

import numpy as np
import pytest
import torch
from torch.autograd import gradcheck

from tests.helpers import assert_close
from v2m.ops import selective_scan

SENSES = [(axis, reverse) for axis in ("row", "col") for reverse in (False, True)]
SHAPES = [(1, 1), (1, 7), (5, 3), (14, 14)]
OPTIONAL = ("B", "C", "D", "z", "delta_bias")
LN2 = math.log(2.0)


def arguments(height, width, batch=2, channels=3, states=2, dtype=torch.float64):
    """Random values for every tensor argument, with moderate positive steps."""
    shape = (batch, height, width)
    tensors = dict(
        u=torch.randn(*shape, channels),
        delta=torch.rand(*shape, channels) + 0.05,
        A=-torch.rand(channels, states) * 2 - 0.05,
        B=torch.randn(*shape, states),
        C=torch.randn(*shape, states),
        D=torch.randn(channels),
        z=torch.randn(*shape, channels),
        delta_bias=torch.rand(channels),
    )
    return {name: value.to(dtype) for name, value in tensors.items()}


def loops(u, delta, A, B=None, C=None, D=None, z=None, delta_bias=None, *, delta_softplus, axis, reverse):
    """A second opinion: the recurrence of one channel, one state and one cell at a time, in float64."""
    u, delta, A, B, C, D, z, delta_bias = (
        None if t is None else t.double().numpy() for t in (u, delta, A, B, C, D, z, delta_bias)
    )
    batch, height, width, channels = u.shape
    lines, length = (height, width) if axis == "row" else (width, height)
    y = np.empty_like(u)
    for b, line, d in itertools.product(range(batch), range(lines), range(channels)):
        h = [0.0] * A.shape[1]
        for t in reversed(range(length)) if reverse else range(length):
            at = (b, line, t) if axis == "row" else (b, t, line)
            x, dt = u[at][d], delta[at][d]
            if delta_bias is not None:
                dt += delta_bias[d]
            if delta_softplus:
                dt = np.logaddexp(0.0, dt)
            total = 0.0 if D is None else D[d] * x
            for n in range(A.shape[1]):
                drive = dt * x * (1.0 if B is None else B[at][n])
                h[n] = math.exp(dt * A[d, n]) * h[n] + drive
                total += h[n] * (1.0 if C is None else C[at][n])
            gate = 1.0 if z is None else z[at][d] / (1.0 + math.exp(-z[at][d]))
            y[at][d] = total * gate
    return torch.from_numpy(y)


@pytest.mark.parametrize(("axis", "reverse"), SENSES)
@pytest.mark.parametrize("shape", SHAPES)
def test_equals_loops_with_every_set_of_options(shape, axis, reverse):
    full = arguments(*shape, batch=1 if shape == (14, 14) else 2)
    for *given, softplus in itertools.product((False, True), repeat=len(OPTIONAL) + 1):
        left_out = {name for name, is_given in zip(OPTIONAL, given, strict=True) if not is_given}
        tensors = {name: value for name, value in full.items() if name not in left_out}
        options = dict(delta_softplus=softplus, axis=axis, reverse=reverse)
        what = f"without {sorted(left_out)}, {options}"
        assert_close(selective_scan(**tensors, **options), loops(**tensors, **options), "float64", what)


@pytest.mark.parametrize(("axis", "reverse"), SENSES)
@pytest.mark.parametrize("states", [1, 5])
def test_equals_loops_at_other_state_sizes(states, axis, reverse):
    options = dict(delta_softplus=True, axis=axis, reverse=reverse)
    tensors = arguments(5, 3, states=states)
    assert_close(selective_scan(**tensors, **options), loops(**tensors, **options), "float64")


@pytest.mark.parametrize(
    ("passes", "expected"),
    [
        # u = [[1, 2], [3, 4]], steps of 1 and A = -ln 2: a state halves from cell to cell.
        ([("row", False)], [[1, 2 + 1 / 2], [3, 4 + 3 / 2]]),
        ([("row", True)], [[1 + 2 / 2, 2], [3 + 4 / 2, 4]]),
        ([("col", False)], [[1, 2], [3 + 1 / 2, 4 + 2 / 2]]),
        ([("col", True)], [[1 + 3 / 2, 2 + 4 / 2], [3, 4]]),
        # Rows, [[1, 2.5], [3, 5.5]], then columns of that: 3 + 1/2 and 5.5 + 2.5/2.
        ([("row", False), ("col", False)], [[1, 2.5], [3.5, 6.75]]),
        # Rows from the right, [[2, 2], [5, 4]], then columns from the bottom: 2 + 5/2 and 2 + 4/2.
        ([("row", True), ("col", True)], [[4.5, 4], [5, 4]]),
    ],
)
def test_passes_worked_by_hand(passes, expected):
    y = torch.tensor([[1.0, 2.0], [3.0, 4.0]], dtype=torch.float64).view(1, 2, 2, 1)
    A = torch.full((1, 1), -LN2, dtype=torch.float64)
    for axis, reverse in passes:
        y = selective_scan(y, torch.ones_like(y), A, axis=axis, reverse=reverse)
    assert_close(y[0, :, :, 0], torch.tensor(expected), "float64")


def test_every_term_worked_by_hand():
    """One row of two cells, u = (1, 3), two states that keep 1/2 and 1/4 per unit of step.

    Steps are delta + bias = (1, 2). B = (1, 2) and (3, 1); C = (1, 1) and (2, 8); D = 10; silu(0) = 0 and
    silu(z) = z far from 0::

        cell 0: h = 1 * 1 * (1, 2)                            = (1, 2)          y = 3 + 10            = 13
        cell 1: h = (1/4 * 1, 1/16 * 2) + 2 * 3 * (3, 1)      = (18.25, 6.125)  y = 36.5 + 49 + 30    = 115.5
    """
    row = lambda *cells: torch.tensor(cells, dtype=torch.float64).view(1, 1, len(cells), -1)  # noqa: E731
    y = selective_scan(
        u=row([1.0], [3.0]),
        delta=row([0.5], [1.5]),
        A=torch.tensor([[-LN2, -2 * LN2]], dtype=torch.float64),
        B=row([1.0, 2.0], [3.0, 1.0]),
        C=row([1.0, 1.0], [2.0, 8.0]),
        D=torch.tensor([10.0], dtype=torch.float64),
        z=row([100.0], [50.0]),
        delta_bias=torch.tensor([0.5], dtype=torch.float64),
    )
    assert_close(y.flatten(), torch.tensor([13 * 100.0, 115.5 * 50.0]), "float64")


@pytest.mark.parametrize(("axis", "reverse"), SENSES)
@pytest.mark.parametrize("name", ["u", "delta", "A", *OPTIONAL])
def test_gradient(name, axis, reverse):
    tensors = arguments(3, 2, batch=1, channels=2)
    value = tensors.pop(name).requires_grad_()

    def scan(v):
        return selective_scan(**tensors, **{name: v}, delta_softplus=True, axis=axis, reverse=reverse)

    assert gradcheck(scan, (value,))


@pytest.mark.parametrize("axis", ["row", "col"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_low_precision_is_rounded_only_once(dtype, axis):
    tensors = arguments(48, 48, batch=1, states=16, dtype=dtype)
    tensors["A"] = tensors["A"] / 16  # long memory: states that were rounded in every cell would drift
    exact = selective_scan(**{k: v.double() for k, v in tensors.items()}, delta_softplus=True, axis=axis)
    y = selective_scan(**tensors, delta_softplus=True, axis=axis)
    assert y.dtype == dtype
    rule = "float32" if dtype == torch.float32 else f"{str(dtype).removeprefix('torch.')} rounding"
    assert_close(y, exact, rule)


def test_dtypes_may_differ():
    tensors = arguments(4, 3, dtype=torch.float32)
    exact = selective_scan(**tensors | {"u": tensors["u"].bfloat16().float()})
    y = selective_scan(**tensors | {"u": tensors["u"].bfloat16()})
    assert y.dtype == torch.bfloat16
    assert_close(y, exact, "bfloat16 rounding")


def test_strided_arguments():
    tensors = {k: v.requires_grad_() for k, v in arguments(5, 3).items()}

    def strided(v):
        if v.ndim < 4:
            return torch.stack([v, v], dim=-1)[..., 0]
        return v.permute(3, 1, 0, 2).contiguous().permute(2, 1, 3, 0)

    views = {k: strided(v) for k, v in tensors.items()}
    assert not any(v.is_contiguous() for v in views.values())
    y, expected = selective_scan(**views), selective_scan(**tensors)
    assert_close(y, expected, "float64")
    cotangent = torch.randn_like(y)
    gradients = torch.autograd.grad(y, list(tensors.values()), cotangent)
    wanted = torch.autograd.grad(expected, list(tensors.values()), cotangent)
    for name, got, want in zip(tensors, gradients, wanted, strict=True):
        assert_close(got, want, "float64", name)


def test_expanded_argument_gets_summed_gradient():
    tensors = arguments(3, 4)
    delta = torch.full((1, 1, 1, 1), 0.5, dtype=torch.float64, requires_grad=True)
    tensors["delta"] = delta.expand(2, 3, 4, 3)
    whole = tensors["delta"].detach().clone().requires_grad_()
    selective_scan(**tensors).sum().backward()
    selective_scan(**tensors | {"delta": whole}).sum().backward()
    assert_close(delta.grad.flatten(), whole.grad.sum().view(1), "float64")


def test_lines_and_samples_are_independent():
    tensors = arguments(5, 4)
    changed = {k: v.clone() for k, v in tensors.items()}
    changed["u"][1, 2] += 1.0
    differs = (selective_scan(**tensors) != selective_scan(**changed)).any(-1)
    assert differs[1, 2].all()
    assert differs.sum() == 4


def test_arguments_are_left_alone():
    tensors = arguments(3, 4)
    copies = {k: v.clone() for k, v in tensors.items()}
    selective_scan(**tensors, delta_softplus=True, axis="col", reverse=True)
    assert all(torch.equal(tensors[k], copies[k]) for k in tensors)


@pytest.mark.parametrize("rate", [1e-4, 1.0, 1e4])
@pytest.mark.parametrize("step", [1e-6, 100.0])
def test_extreme_steps_and_rates_stay_finite(step, rate):
    tensors = arguments(6, 6, dtype=torch.float32)
    tensors |= {"delta": torch.full_like(tensors["delta"], step), "A": torch.full_like(tensors["A"], -rate)}
    tensors = {k: v.requires_grad_() for k, v in tensors.items() if k != "delta_bias"}
    y = selective_scan(**tensors)
    gradients = torch.autograd.grad(y.sum(), list(tensors.values()))
    assert all(bool(t.isfinite().all()) for t in (y, *gradients))


@pytest.mark.parametrize("raw", [-700.0, -30.0, 0.0, 19.9, 20.1, 30.0, 39.9, 40.1, 700.0])
def test_softplus_is_exact_in_float64(raw):
    one = torch.ones(1, 1, 1, 1, dtype=torch.float64)
    step = selective_scan(one, raw * one, -one[0, 0], delta_softplus=True).item()
    assert step == pytest.approx(np.logaddexp(0.0, raw), rel=4e-16, abs=0.0)


def test_empty_batch():
    tensors = {k: v.requires_grad_() for k, v in arguments(3, 4, batch=0).items()}
    y = selective_scan(**tensors)
    assert y.shape == (0, 3, 4, 3)
    y.sum().backward()
    assert tensors["A"].grad.abs().sum() == 0


@pytest.mark.parametrize(
    ("name", "shape", "parts"),
    [
        ("u", (3, 4, 3), ["u has shape [3, 4, 3]", "[B, H, W, D]"]),
        ("u", (2, 0, 4, 3), ["u has shape [2, 0, 4, 3]", "non-empty"]),
        ("u", (2, 3, 0, 3), ["u has shape [2, 3, 0, 3]", "non-empty"]),
        ("delta", (2, 3, 4, 1), ["delta has shape [2, 3, 4, 1]", "[2, 3, 4, 3]"]),
        ("A", (3,), ["A has shape [3]", "[D, N]", "D = 3"]),
        ("A", (4, 2), ["A has shape [4, 2]", "D = 3"]),
        ("B", (2, 3, 4, 3), ["B has shape [2, 3, 4, 3]", "[2, 3, 4, 2]"]),
        ("C", (2, 4, 3, 2), ["C has shape [2, 4, 3, 2]", "[2, 3, 4, 2]"]),
        ("D", (1,), ["D has shape [1]", "[3]"]),
        ("z", (2, 3, 4), ["z has shape [2, 3, 4]", "[2, 3, 4, 3]"]),
        ("delta_bias", (3, 1), ["delta_bias has shape [3, 1]", "[3]"]),
    ],
)
def test_wrong_shape(name, shape, parts):
    with pytest.raises(ValueError, match="selective_scan") as error:
        selective_scan(**arguments(3, 4) | {name: torch.ones(shape, dtype=torch.float64)})
    assert all(part in str(error.value) for part in parts), str(error.value)


@pytest.mark.parametrize("axis", ["rows", "", None, 1])
def test_wrong_axis(axis):
    with pytest.raises(ValueError, match=r"axis is .* expected 'row' or 'col'"):
        selective_scan(**arguments(3, 4), axis=axis)


@pytest.mark.parametrize("dtype", [torch.int64, torch.bool, torch.complex64])
def test_wrong_dtype(dtype):
    with pytest.raises(TypeError, match=f"u has dtype {dtype}, expected one of"):
        selective_scan(**arguments(3, 4) | {"u": torch.ones(2, 3, 4, 3, dtype=dtype)})


@pytest.mark.parametrize("name", ["delta", "A", *OPTIONAL])
def test_wrong_device(name):
    tensors = arguments(3, 4)
    with pytest.raises(ValueError, match=f"{name} is on meta, expected cpu"):
        selective_scan(**tensors | {name: tensors[name].to("meta")})
