import itertools
import math

import numpy as np
import pytest
import torch
from torch.autograd import gradcheck, gradgradcheck

from tests.helpers import assert_close
from tests.ops.inputs import (
    FAST,
    SENSES,
    VIEWS,
    assert_parity,
    grid,
    outside_line,
    scan_arguments,
    value_and_gradients,
)
from v2m.ops import selective_scan

SHAPES = [(1, 1), (1, 7), (5, 3), (14, 14)]
OPTIONAL = ("B", "C", "D", "z", "delta_bias")
LN2 = math.log(2.0)
# Lines, cells of a line, channels, states. The C++ kernels take 64 cells at a time (32 on the way back), and
# up to 16 channels and 16 states.
CASES = [
    (1, 1, 1, 1),
    (1, 7, 17, 3),
    (7, 1, 40, 5),
    (5, 3, 17, 33),
    (14, 14, 40, 16),
    (2, 70, 17, 4),
    (1, 130, 3, 8),
]


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
    full = scan_arguments(*shape, batch=1 if shape == (14, 14) else 2)
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
    tensors = scan_arguments(5, 3, states=states)
    assert_close(selective_scan(**tensors, **options), loops(**tensors, **options), "float64")


@pytest.mark.parametrize("implementation", FAST)
@pytest.mark.parametrize(("axis", "reverse"), [SENSES[0], SENSES[3]])
@pytest.mark.parametrize("softplus", [False, True])
def test_parity_with_every_set_of_options(softplus, axis, reverse, implementation):
    full = scan_arguments(3, 4, states=3, dtype=torch.float32)
    for given in itertools.product((False, True), repeat=len(OPTIONAL)):
        left_out = {name for name, is_given in zip(OPTIONAL, given, strict=True) if not is_given}
        tensors = {name: value for name, value in full.items() if name not in left_out}
        options = dict(delta_softplus=softplus, axis=axis, reverse=reverse, implementation=implementation)
        assert_parity(selective_scan, tensors, **options, what=f"without {sorted(left_out)}")


@pytest.mark.parametrize("implementation", FAST)
@pytest.mark.parametrize(("axis", "reverse"), SENSES)
@pytest.mark.parametrize("left_out", ["", "B", "C", "BC"])
@pytest.mark.parametrize("case", CASES)
def test_parity(case, left_out, axis, reverse, implementation):
    lines, length, *sizes = case
    tensors = scan_arguments(*grid(lines, length, axis), 2, *sizes, dtype=torch.float32)
    tensors = {name: value for name, value in tensors.items() if name not in left_out}
    options = dict(delta_softplus=True, axis=axis, reverse=reverse, implementation=implementation)
    assert_parity(selective_scan, tensors, **options)


@pytest.mark.parametrize("implementation", FAST)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("left_out", ["", "B", "C"])
def test_parity_in_low_precision(left_out, dtype, implementation):
    tensors = scan_arguments(5, 6, 2, 17, 5, dtype=dtype)
    tensors = {name: value for name, value in tensors.items() if name not in left_out}
    for axis, reverse in SENSES:
        options = dict(delta_softplus=True, axis=axis, reverse=reverse, implementation=implementation)
        assert_parity(selective_scan, tensors, **options)


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
    tensors = scan_arguments(3, 2, batch=1, channels=2)
    value = tensors.pop(name).requires_grad_()

    def scan(v):
        return selective_scan(**tensors, **{name: v}, delta_softplus=True, axis=axis, reverse=reverse)

    assert gradcheck(scan, (value,))


@pytest.mark.parametrize("axis", ["row", "col"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_low_precision_is_rounded_only_once(dtype, axis):
    tensors = scan_arguments(48, 48, batch=1, states=16, dtype=dtype)
    tensors["A"] = tensors["A"] / 16  # long memory: states that were rounded in every cell would drift
    exact = selective_scan(**{k: v.double() for k, v in tensors.items()}, delta_softplus=True, axis=axis)
    y = selective_scan(**tensors, delta_softplus=True, axis=axis)
    assert y.dtype == dtype
    rule = "float32" if dtype == torch.float32 else f"{str(dtype).removeprefix('torch.')} rounding"
    assert_close(y, exact, rule)


@pytest.mark.parametrize("implementation", FAST)
@pytest.mark.parametrize("name", ["u", "delta", "A", *OPTIONAL])
def test_dtypes_may_differ(name, implementation):
    tensors = scan_arguments(4, 3, dtype=torch.float32)
    tensors[name] = tensors[name].bfloat16()
    assert_parity(selective_scan, tensors, delta_softplus=True, implementation=implementation)


@pytest.mark.parametrize("implementation", [*FAST, "reference"])
@pytest.mark.parametrize("axis", ["row", "col"])
@pytest.mark.parametrize("view", VIEWS)
def test_strided_arguments(view, axis, implementation):
    dtype = torch.float64 if implementation == "reference" else torch.float32
    tensors = {name: view(value) for name, value in scan_arguments(5, 4, dtype=dtype).items()}
    assert not any(value.is_contiguous() for value in tensors.values() if value.ndim > 1)
    options = dict(axis=axis, reverse=True, implementation=implementation)
    actual = value_and_gradients(selective_scan, tensors, **options)
    contiguous = {name: value.clone(memory_format=torch.contiguous_format) for name, value in tensors.items()}
    expected = value_and_gradients(selective_scan, contiguous, **options)
    rule = "float64" if implementation == "reference" else "float32"
    for name, value in actual.items():
        assert_close(value, expected[name], rule, name)


def test_expanded_argument_gets_summed_gradient():
    tensors = scan_arguments(3, 4)
    delta = torch.full((1, 1, 1, 1), 0.5, dtype=torch.float64, requires_grad=True)
    tensors["delta"] = delta.expand(2, 3, 4, 3)
    whole = tensors["delta"].detach().clone().requires_grad_()
    selective_scan(**tensors).sum().backward()
    selective_scan(**tensors | {"delta": whole}).sum().backward()
    assert_close(delta.grad.flatten(), whole.grad.sum().view(1), "float64")


def test_lines_and_samples_are_independent():
    tensors = scan_arguments(5, 4)
    changed = {k: v.clone() for k, v in tensors.items()}
    changed["u"][1, 2] += 1.0
    differs = (selective_scan(**tensors) != selective_scan(**changed)).any(-1)
    assert differs[1, 2].all()
    assert differs.sum() == 4


def test_arguments_are_left_alone():
    tensors = scan_arguments(3, 4)
    copies = {k: v.clone() for k, v in tensors.items()}
    selective_scan(**tensors, delta_softplus=True, axis="col", reverse=True)
    assert all(torch.equal(tensors[k], copies[k]) for k in tensors)


def extreme(rate, step):
    tensors = scan_arguments(6, 6, dtype=torch.float32)
    del tensors["delta_bias"]
    steps, rates = torch.full_like(tensors["delta"], step), torch.full_like(tensors["A"], -rate)
    return tensors | {"delta": steps, "A": rates}


@pytest.mark.parametrize("implementation", [*FAST, "reference"])
@pytest.mark.parametrize("rate", [1e-4, 1.0, 100.0, 1e4])
@pytest.mark.parametrize("step", [1e-6, 0.1, 1.0, 100.0])
def test_extreme_steps_and_rates(step, rate, implementation):
    rules = ("float32 underflow", "float32 underflow")
    assert_parity(selective_scan, extreme(rate, step), rules=rules, implementation=implementation)


@pytest.mark.parametrize("implementation", [*FAST, "reference"])
@pytest.mark.parametrize(("axis", "reverse"), SENSES)
def test_all_steps_and_rates_side_by_side(axis, reverse, implementation):
    tensors = scan_arguments(40, 6, channels=17, states=5, dtype=torch.float32)
    steps = torch.logspace(-6, 2, tensors["delta"].numel())[torch.randperm(tensors["delta"].numel())]
    tensors |= {"delta": steps.view_as(tensors["delta"]), "A": -torch.logspace(-4, 4, 85).view(17, 5)}
    del tensors["delta_bias"]
    rules = ("float32 underflow", "float32 underflow")
    options = dict(axis=axis, reverse=reverse, implementation=implementation)
    assert_parity(selective_scan, tensors, rules=rules, **options)


@pytest.mark.parametrize("implementation", [*FAST, "reference"])
@pytest.mark.parametrize("raw", [-100.0, -80.0, -20.0, 0.0, 19.0, 21.0, 39.0, 41.0, 100.0])
def test_softplus_of_large_numbers(raw, implementation):
    tensors = extreme(1.0, raw)
    rules = ("float32 underflow", "float32 underflow")
    options = dict(delta_softplus=True, implementation=implementation)
    assert_parity(selective_scan, tensors, rules=rules, **options)


@pytest.mark.parametrize("implementation", FAST)
@pytest.mark.parametrize("name", ["u", "delta", "B", "C", "z"])
@pytest.mark.parametrize(("axis", "reverse"), SENSES)
def test_nan_stays_in_its_line(axis, reverse, name, implementation):
    options = dict(delta_softplus=True, axis=axis, reverse=reverse, implementation=implementation)
    clean = scan_arguments(5, 6, channels=17, states=3, dtype=torch.float32)
    dirty = {k: v.clone() for k, v in clean.items()}
    dirty[name][1, 2, 3, 0] = torch.nan
    expected = value_and_gradients(selective_scan, clean, **options)
    actual = value_and_gradients(selective_scan, dirty, **options)
    others = outside_line(expected["y"], axis)
    for k in ("y", "u", "delta", "B", "C", "z"):
        assert torch.equal(actual[k][others], expected[k][others]), k
    wanted = selective_scan(**dirty, **options | {"implementation": "reference"})
    assert torch.equal(actual["y"].isnan(), wanted.isnan())
    assert_close(actual["y"].nan_to_num(), wanted.nan_to_num(), "float32")


@pytest.mark.parametrize("implementation", FAST)
def test_large_step_before_a_nan(implementation):
    tensors = extreme(50.0, 0.1)
    tensors["delta"][1, 2, 3, 0], tensors["delta"][1, 2, 4, 0] = 1000.0, torch.nan
    y = selective_scan(**tensors, implementation=implementation)
    wanted = selective_scan(**tensors, implementation="reference")
    assert_close(y[:, :, :4], wanted[:, :, :4], "float32")


# The C++ kernels take states by 1, 4, 8 or 16.
@pytest.mark.parametrize("implementation", FAST)
@pytest.mark.parametrize("states", [3, 4])
@pytest.mark.parametrize("softplus", [False, True])
@pytest.mark.parametrize("step", [torch.inf, -torch.inf])
def test_infinite_step_where_the_reference_is_finite(step, softplus, states, implementation):
    tensors = scan_arguments(4, 9, states=states, dtype=torch.float32)
    tensors["delta"][1, 2, 3, 0] = step
    options = dict(delta_softplus=softplus)
    actual = value_and_gradients(selective_scan, tensors, **options, implementation=implementation)
    wanted = value_and_gradients(selective_scan, tensors, **options, implementation="reference")
    for name, value in wanted.items():
        finite = value.isfinite()
        assert finite.any()
        assert_close(actual[name][finite], value[finite], "float32 gradient", name)


@pytest.mark.parametrize("raw", [-700.0, -30.0, 0.0, 19.9, 20.1, 30.0, 39.9, 40.1, 700.0])
def test_softplus_is_exact_in_float64(raw):
    one = torch.ones(1, 1, 1, 1, dtype=torch.float64)
    step = selective_scan(one, raw * one, -one[0, 0], delta_softplus=True).item()
    assert step == pytest.approx(np.logaddexp(0.0, raw), rel=4e-16, abs=0.0)


@pytest.mark.parametrize("implementation", [*FAST, "reference"])
@pytest.mark.parametrize("axis", ["row", "col"])
def test_empty_batch(axis, implementation):
    tensors = scan_arguments(3, 4, batch=0, dtype=torch.float32)
    actual = value_and_gradients(selective_scan, tensors, axis=axis, implementation=implementation)
    assert actual.pop("y").shape == (0, 3, 4, 3)
    for name, gradient in actual.items():
        assert gradient.shape == tensors[name].shape
        assert gradient.abs().sum() == 0, name


@pytest.mark.parametrize("implementation", FAST)
@pytest.mark.parametrize("given", [True, False])
def test_no_states(given, implementation):
    tensors = scan_arguments(3, 4, states=0, dtype=torch.float32)
    if not given:
        del tensors["B"], tensors["C"]
    assert_parity(selective_scan, tensors, implementation=implementation)


def test_reference_is_differentiable_twice():
    tensors = scan_arguments(2, 2, batch=1, channels=2)
    u = tensors.pop("u").requires_grad_()

    def scan(u):
        return selective_scan(u, **tensors, delta_softplus=True, implementation="reference").square()

    assert gradgradcheck(scan, (u,))


@pytest.mark.parametrize(
    ("name", "shape", "parts"),
    [
        ("u", (3, 4, 3), ["u has shape [3, 4, 3]", "[B, H, W, D]"]),
        ("u", (2, 0, 4, 3), ["u has shape [2, 0, 4, 3]", "non-empty"]),
        ("u", (2, 3, 0, 3), ["u has shape [2, 3, 0, 3]", "non-empty"]),
        ("delta", (2, 3, 4, 1), ["delta has shape [2, 3, 4, 1]", "[2, 3, 4, 3]"]),
        ("A", (3, 2, 1), ["A has shape [3, 2, 1]", "expected [D, N] or [D]", "D = 3"]),
        ("A", (), ["A has shape []", "expected [D, N] or [D]", "D = 3"]),
        ("A", (4,), ["A has shape [4]", "expected [3] ([D]) with D = 3 as in u"]),
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
        selective_scan(**scan_arguments(3, 4) | {name: torch.ones(shape, dtype=torch.float64)})
    assert all(part in str(error.value) for part in parts), str(error.value)


@pytest.mark.parametrize("axis", ["rows", "", None, 1])
def test_wrong_axis(axis):
    with pytest.raises(ValueError, match=r"axis is .* expected 'row' or 'col'"):
        selective_scan(**scan_arguments(3, 4), axis=axis)


@pytest.mark.parametrize("dtype", [torch.int64, torch.bool, torch.complex64])
def test_wrong_dtype(dtype):
    with pytest.raises(TypeError, match=f"u has dtype {dtype}, expected one of"):
        selective_scan(**scan_arguments(3, 4) | {"u": torch.ones(2, 3, 4, 3, dtype=dtype)})


@pytest.mark.parametrize("name", ["delta", "A", *OPTIONAL])
def test_wrong_device(name):
    tensors = scan_arguments(3, 4)
    with pytest.raises(ValueError, match=f"{name} is on meta, expected cpu"):
        selective_scan(**tensors | {name: tensors[name].to("meta")})


@pytest.mark.parametrize("name", ["cuda", "CPU", 1, ""])
def test_wrong_implementation(name):
    with pytest.raises(ValueError, match="implementation") as error:
        selective_scan(**scan_arguments(3, 4), implementation=name)
    choices = "'reference', 'cpu', 'triton', 'pytorch'"
    expected = f"selective_scan: implementation is {name!r}, expected one of {choices}"
    assert str(error.value) == expected


@pytest.mark.parametrize("name", ["cpu", "triton", "pytorch"])
def test_only_the_reference_takes_float64(name):
    with pytest.raises(ValueError, match=f"^selective_scan: implementation '{name}' takes no float64"):
        selective_scan(**scan_arguments(3, 4), implementation=name)


@pytest.mark.parametrize(
    ("name", "device", "message"),
    [
        ("triton", "cpu", "implementation 'triton' takes tensors on a GPU, got one on cpu"),
        ("cpu", "meta", "implementation 'cpu' takes tensors on the CPU, got one on meta"),
    ],
)
def test_implementation_for_another_device(name, device, message, monkeypatch):
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    tensors = {k: v.to(device) for k, v in scan_arguments(3, 4, dtype=torch.float32).items()}
    with pytest.raises(ValueError, match=f"^selective_scan: {message}$"):
        selective_scan(**tensors, implementation=name)
