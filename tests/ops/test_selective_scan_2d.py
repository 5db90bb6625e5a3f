import itertools
import math

import numpy as np
import pytest
import torch
from torch.autograd import gradcheck, gradgradcheck

from tests.helpers import assert_close
from tests.ops.inputs import FAST, VIEWS, assert_parity, scan_2d_arguments, value_and_gradients
from v2m.ops import selective_scan, selective_scan_2d

CORNERS = list(itertools.product((False, True), repeat=2))
SWEEPS = [None, 0, 1, 3]
NAMES = list(scan_2d_arguments(1, 1))
# Height, width, channels, states. The C++ kernels take up to 16 channels at a time.
CASES = [
    (1, 1, 1, 1),
    (1, 7, 17, 3),
    (7, 1, 40, 8),
    (5, 3, 17, 17),
    (14, 14, 3, 16),
    (3, 20, 2, 1),
]


def loops(
    u,
    delta_row,
    delta_col,
    A_row,
    A_col,
    B_row,
    B_col,
    C_row,
    C_col,
    coupling_row,
    coupling_col,
    D=None,
    z=None,
    *,
    delta_softplus,
    reverse_row,
    reverse_col,
    sweeps,
):
    """A second opinion: one channel, one state, one cell and one sweep at a time, in float64."""
    batch, height, width, channels = u.shape
    states, levels = A_row.shape[1], 1 if sweeps is None else 1 + sweeps
    y = np.zeros(u.shape)
    rows = range(height)[:: -1 if reverse_col else 1]
    cols = range(width)[:: -1 if reverse_row else 1]
    for b, d, n in itertools.product(range(batch), range(channels), range(states)):
        # h1[m] and h2[m] by cell: sweep m, or the coupled states as a sweep that is its own before.
        h1, h2 = ([{} for _ in range(levels)] for _ in range(2))
        for m, (i, row), (j, col) in itertools.product(range(levels), enumerate(rows), enumerate(cols)):
            at, before = (b, row, col), m if sweeps is None else m - 1
            other = [h[before] if before >= 0 else {} for h in (h1, h2)]
            x, steps = u[at][d].item(), [delta_row[at][d].item(), delta_col[at][d].item()]
            dt1, dt2 = (np.logaddexp(0.0, step) for step in steps) if delta_softplus else steps
            g1, g2 = coupling_row[at][n].item(), coupling_col[at][n].item()
            left, up = (i, j - 1), (i - 1, j)
            mixed1 = (1 - g1) * h1[m].get(left, 0.0) + g1 * other[1].get(left, 0.0)
            mixed2 = g2 * other[0].get(up, 0.0) + (1 - g2) * h2[m].get(up, 0.0)
            h1[m][i, j] = math.exp(dt1 * A_row[d, n].item()) * mixed1 + dt1 * B_row[at][n].item() * x
            h2[m][i, j] = math.exp(dt2 * A_col[d, n].item()) * mixed2 + dt2 * B_col[at][n].item() * x
            if m == levels - 1:
                y[at][d] += C_row[at][n].item() * h1[m][i, j] + C_col[at][n].item() * h2[m][i, j]
    y = torch.from_numpy(y)
    y = y if D is None else y + D * u
    return y if z is None else y * z * torch.sigmoid(z)


def corner_options(corner, **others):
    return dict(reverse_row=corner[0], reverse_col=corner[1], **others)


@pytest.mark.parametrize("sweeps", SWEEPS)
@pytest.mark.parametrize("corner", CORNERS)
@pytest.mark.parametrize("shape", [(1, 1), (1, 4), (3, 1), (3, 4)])
def test_equals_loops(shape, corner, sweeps):
    full = scan_2d_arguments(*shape)
    for left_out, softplus in itertools.product(((), ("D",), ("z",), ("D", "z")), (False, True)):
        tensors = {name: value for name, value in full.items() if name not in left_out}
        options = corner_options(corner, sweeps=sweeps, delta_softplus=softplus)
        expected = loops(**tensors, **options)
        assert_close(selective_scan_2d(**tensors, **options), expected, "float64", f"without {left_out}")


@pytest.mark.parametrize("implementation", FAST)
@pytest.mark.parametrize("sweeps", SWEEPS)
@pytest.mark.parametrize("corner", CORNERS)
@pytest.mark.parametrize("case", CASES)
def test_parity(case, corner, sweeps, implementation):
    height, width, *sizes = case
    tensors = scan_2d_arguments(height, width, 2, *sizes, dtype=torch.float32)
    options = corner_options(corner, sweeps=sweeps, implementation=implementation)
    assert_parity(selective_scan_2d, tensors, delta_softplus=True, **options)


@pytest.mark.parametrize("implementation", FAST)
@pytest.mark.parametrize("softplus", [False, True])
@pytest.mark.parametrize("left_out", ["", "D", "z", "Dz"])
def test_parity_without_skip_or_gate(left_out, softplus, implementation):
    tensors = scan_2d_arguments(3, 4, states=3, dtype=torch.float32)
    tensors = {name: value for name, value in tensors.items() if name not in left_out}
    assert_parity(selective_scan_2d, tensors, delta_softplus=softplus, implementation=implementation)


@pytest.mark.parametrize("implementation", FAST)
@pytest.mark.parametrize("sweeps", [None, 2])
def test_parity_on_a_large_map(sweeps, implementation):
    """More rows and channels than the backward of the C++ kernels keeps at once."""
    tensors = scan_2d_arguments(70, 33, 1, 33, 16, dtype=torch.float32)
    assert_parity(selective_scan_2d, tensors, sweeps=sweeps, implementation=implementation)


@pytest.mark.parametrize("implementation", FAST)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("left_out", ["", "D", "z", "Dz"])
def test_parity_in_low_precision(left_out, dtype, implementation):
    tensors = scan_2d_arguments(5, 6, 2, 17, 5, dtype=dtype)
    tensors = {name: value for name, value in tensors.items() if name not in left_out}
    for sweeps in (None, 1):
        assert_parity(selective_scan_2d, tensors, sweeps=sweeps, implementation=implementation)


@pytest.mark.parametrize("implementation", FAST)
@pytest.mark.parametrize("name", NAMES)
def test_dtypes_may_differ(name, implementation):
    tensors = scan_2d_arguments(4, 3, dtype=torch.float32)
    tensors[name] = tensors[name].bfloat16()
    assert_parity(selective_scan_2d, tensors, delta_softplus=True, implementation=implementation)


@pytest.mark.parametrize("implementation", [*FAST, "reference"])
@pytest.mark.parametrize("corner", CORNERS)
def test_a_corner_is_a_flip(corner, implementation):
    dims = [dim for dim, reverse in ((2, corner[0]), (1, corner[1])) if reverse]
    tensors = scan_2d_arguments(4, 5, dtype=torch.float32)
    flipped = {name: value.flip(dims) if value.ndim == 4 else value for name, value in tensors.items()}
    y = selective_scan_2d(**tensors, **corner_options(corner), implementation=implementation)
    expected = selective_scan_2d(**flipped, implementation=implementation).flip(dims)
    assert_close(y, expected, "float32")


@pytest.mark.parametrize("implementation", [*FAST, "reference"])
@pytest.mark.parametrize("sweeps", SWEEPS)
@pytest.mark.parametrize("corner", CORNERS)
def test_without_coupling_it_is_a_row_scan_and_a_column_scan(corner, sweeps, implementation):
    tensors = scan_2d_arguments(5, 6, channels=17, states=3, dtype=torch.float32)
    del tensors["D"], tensors["z"]
    tensors |= {name: torch.zeros_like(tensors[name]) for name in ("coupling_row", "coupling_col")}
    options = dict(delta_softplus=True, implementation=implementation)
    expected = sum(
        selective_scan(
            tensors["u"],
            *(tensors[f"{name}_{axis}"] for name in ("delta", "A", "B", "C")),
            axis=axis,
            reverse=reverse,
            **options,
        )
        for axis, reverse in zip(("row", "col"), corner, strict=True)
    )
    y = selective_scan_2d(**tensors, **corner_options(corner, sweeps=sweeps), **options)
    assert_close(y, expected, "float32")


@pytest.mark.parametrize("implementation", [*FAST, "reference"])
@pytest.mark.parametrize("shape", [(1, 1), (1, 6), (2, 2), (5, 3), (4, 6)])
def test_sweeps_end_at_the_coupled_states(shape, implementation):
    """The coupling is nilpotent: H + W - 2 sweeps are exact, and a row needs none."""
    dtype = torch.float64 if implementation == "reference" else torch.float32
    tensors = scan_2d_arguments(*shape, dtype=dtype)
    tensors = {name: value for name, value in tensors.items() if name not in "Dz"}
    exact = value_and_gradients(selective_scan_2d, tensors, implementation=implementation)
    errors = []
    for sweeps in range(sum(shape)):
        swept = value_and_gradients(selective_scan_2d, tensors, sweeps=sweeps, implementation=implementation)
        errors.append((swept["y"] - exact["y"]).abs().max() / exact["y"].abs().max())
        if sweeps >= sum(shape) - 2:
            rules = ("float64", "float64") if dtype == torch.float64 else ("float32", "float32 gradient")
            for name, value in swept.items():
                assert_close(value, exact[name], rules[name != "y"], f"{name}, {sweeps} sweeps")
    if min(shape) > 1:
        assert errors[0] > 1e-2
        assert all(error > 1e-6 for error in errors[: min(shape) - 1])


def test_an_impulse_worked_by_hand():
    """Steps of 1 and A = -ln 2: states halve; a coupling of 1 swaps them, so they go down a staircase.

    h1 = h2 = 1 at the corner. Then h1[0, 1] = h2[0, 0] / 2 and h2[1, 0] = h1[0, 0] / 2; from there, h2 of a
    cell comes from h1 above, and h1 from h2 to the left: [1, 1] gets both as quarters, and [0, 2] and [2, 0]
    nothing.
    """
    u = torch.zeros(1, 3, 3, 1, dtype=torch.float64)
    u[0, 0, 0] = 1.0
    ones, A = torch.ones_like(u), torch.full((1, 1), -math.log(2.0), dtype=torch.float64)
    y = selective_scan_2d(u, ones, ones, A, A, *(ones,) * 4, coupling_row=ones, coupling_col=ones)
    expected = [[2, 1 / 2, 0], [1 / 2, 1 / 4 + 1 / 4, 1 / 8], [0, 1 / 8, 1 / 16 + 1 / 16]]
    assert_close(y[0, :, :, 0], torch.tensor(expected), "float64")


@pytest.mark.parametrize("sweeps", [None, 0, 2])
@pytest.mark.parametrize("name", NAMES)
def test_gradient(name, sweeps):
    tensors = scan_2d_arguments(2, 3, batch=1, channels=2)
    value = tensors.pop(name).requires_grad_()

    def scan(v):
        return selective_scan_2d(**tensors, **{name: v}, delta_softplus=True, reverse_col=True, sweeps=sweeps)

    assert gradcheck(scan, (value,))


def test_reference_is_differentiable_twice():
    tensors = scan_2d_arguments(2, 2, batch=1, channels=1)
    u = tensors.pop("u").requires_grad_()
    assert gradgradcheck(lambda u: selective_scan_2d(u, **tensors, delta_softplus=True).square(), (u,))


@pytest.mark.parametrize("implementation", [*FAST, "reference"])
@pytest.mark.parametrize("view", VIEWS)
def test_strided_arguments(view, implementation):
    dtype = torch.float64 if implementation == "reference" else torch.float32
    tensors = {name: view(value) for name, value in scan_2d_arguments(5, 4, dtype=dtype).items()}
    assert not any(value.is_contiguous() for value in tensors.values() if value.ndim > 1)
    options = dict(reverse_row=True, implementation=implementation)
    actual = value_and_gradients(selective_scan_2d, tensors, **options)
    contiguous = {name: value.clone(memory_format=torch.contiguous_format) for name, value in tensors.items()}
    expected = value_and_gradients(selective_scan_2d, contiguous, **options)
    rule = "float64" if implementation == "reference" else "float32"
    for name, value in actual.items():
        assert_close(value, expected[name], rule, name)


def test_expanded_argument_gets_summed_gradient():
    tensors = scan_2d_arguments(3, 4)
    coupling = torch.full((1, 1, 1, 1), 0.5, dtype=torch.float64, requires_grad=True)
    tensors["coupling_row"] = coupling.expand(2, 3, 4, 2)
    whole = tensors["coupling_row"].detach().clone().requires_grad_()
    selective_scan_2d(**tensors).sum().backward()
    selective_scan_2d(**tensors | {"coupling_row": whole}).sum().backward()
    assert_close(coupling.grad.flatten(), whole.grad.sum().view(1), "float64")


@pytest.mark.parametrize("implementation", FAST)
@pytest.mark.parametrize("sweeps", [None, 1])
def test_all_steps_and_rates_side_by_side(sweeps, implementation):
    tensors = scan_2d_arguments(20, 12, channels=17, states=5, dtype=torch.float32)
    steps = torch.logspace(-6, 2, tensors["u"].numel())
    rates = -torch.logspace(-4, 4, 85).view(17, 5)
    for kind in ("row", "col"):
        shuffled = steps[torch.randperm(steps.numel())].view_as(tensors["u"])
        tensors |= {f"delta_{kind}": shuffled, f"A_{kind}": rates}
    rules = ("float32 underflow", "float32 underflow")
    options = dict(sweeps=sweeps, implementation=implementation)
    assert_parity(selective_scan_2d, tensors, rules=rules, **options)


@pytest.mark.parametrize("implementation", FAST)
@pytest.mark.parametrize("step", [1e3, 1e30])
def test_large_steps_stay_finite(step, implementation):
    tensors = scan_2d_arguments(4, 5, channels=17, states=3, dtype=torch.float32)
    tensors["delta_row"][:, 1:, 2, 3], tensors["delta_col"][:, 2, 1:, 5] = step, step
    tensors |= {name: 1e-30 * tensors[name] for name in ("B_row", "B_col")}
    actual = value_and_gradients(selective_scan_2d, tensors, implementation=implementation)
    assert all(value.isfinite().all() for value in actual.values())


@pytest.mark.parametrize("implementation", FAST)
@pytest.mark.parametrize("sweeps", [None, 1])
@pytest.mark.parametrize("name", [name for name in NAMES if name not in ("A_row", "A_col", "D")])
@pytest.mark.parametrize("corner", CORNERS[::3])
def test_nan_goes_where_the_reference_lets_it(corner, name, sweeps, implementation):
    options = corner_options(corner, delta_softplus=True, sweeps=sweeps)
    clean = scan_2d_arguments(5, 6, channels=17, states=3, dtype=torch.float32)
    dirty = {k: v.clone() for k, v in clean.items()}
    dirty[name][1, 2, 3, 0] = torch.nan
    expected = value_and_gradients(selective_scan_2d, clean, **options, implementation=implementation)
    actual = value_and_gradients(selective_scan_2d, dirty, **options, implementation=implementation)
    for k in ("y", *(k for k in NAMES if k not in ("A_row", "A_col", "D"))):
        assert torch.equal(actual[k][0], expected[k][0]), k
    wanted = value_and_gradients(selective_scan_2d, dirty, **options, implementation="reference")
    assert wanted["y"].isnan().any()
    for k, value in wanted.items():
        assert torch.equal(actual[k].isnan(), value.isnan()), k
    assert_close(actual["y"].nan_to_num(), wanted["y"].nan_to_num(), "float32")


@pytest.mark.parametrize("implementation", [*FAST, "reference"])
@pytest.mark.parametrize("sweeps", [None, 1])
def test_empty_batch(sweeps, implementation):
    tensors = scan_2d_arguments(3, 4, batch=0, dtype=torch.float32)
    actual = value_and_gradients(selective_scan_2d, tensors, sweeps=sweeps, implementation=implementation)
    assert actual.pop("y").shape == (0, 3, 4, 3)
    for name, gradient in actual.items():
        assert gradient.shape == tensors[name].shape
        assert gradient.abs().sum() == 0, name


@pytest.mark.parametrize("implementation", FAST)
def test_no_states(implementation):
    tensors = scan_2d_arguments(3, 4, states=0, dtype=torch.float32)
    assert_parity(selective_scan_2d, tensors, implementation=implementation)


@pytest.mark.parametrize("implementation", [*FAST, "reference"])
@pytest.mark.parametrize("left_out", ["", "Dz"])
def test_dtype_of_the_input_under_autocast(left_out, implementation):
    low = scan_2d_arguments(4, 5, dtype=torch.bfloat16)
    low = {name: value for name, value in low.items() if name not in left_out}
    expected = selective_scan_2d(**low, implementation=implementation)
    with torch.autocast("cpu", torch.bfloat16):
        y = selective_scan_2d(**low, implementation=implementation)
    assert y.dtype == torch.bfloat16
    assert torch.equal(y, expected)


@pytest.mark.parametrize(
    ("name", "shape", "parts"),
    [
        ("u", (3, 4, 3), ["u has shape [3, 4, 3]", "[B, H, W, D]"]),
        ("u", (2, 0, 4, 3), ["u has shape [2, 0, 4, 3]", "non-empty"]),
        ("delta_row", (2, 3, 4, 1), ["delta_row has shape [2, 3, 4, 1]", "[2, 3, 4, 3]"]),
        ("delta_col", (2, 3, 4, 2), ["delta_col has shape [2, 3, 4, 2]", "[2, 3, 4, 3]"]),
        ("A_row", (3, 2, 1), ["A_row has shape [3, 2, 1]", "expected [D, N] or [D]", "D = 3"]),
        ("A_row", (), ["A_row has shape []", "expected [D, N] or [D]", "D = 3"]),
        ("A_row", (3,), ["A_col has shape [3, 2]", "expected [3] (as A_row)"]),
        ("A_col", (3,), ["A_col has shape [3]", "expected [3, 2] (as A_row)"]),
        ("A_col", (3, 1), ["A_col has shape [3, 1]", "[3, 2]"]),
        ("B_row", (2, 3, 4, 3), ["B_row has shape [2, 3, 4, 3]", "[2, 3, 4, 2]"]),
        ("B_col", (2, 3, 4, 3), ["B_col has shape [2, 3, 4, 3]", "[2, 3, 4, 2]"]),
        ("C_row", (2, 4, 3, 2), ["C_row has shape [2, 4, 3, 2]", "[2, 3, 4, 2]"]),
        ("C_col", (2, 4, 3, 2), ["C_col has shape [2, 4, 3, 2]", "[2, 3, 4, 2]"]),
        ("coupling_row", (2, 3, 4), ["coupling_row has shape [2, 3, 4]", "[2, 3, 4, 2]"]),
        ("coupling_col", (2, 3, 4, 3), ["coupling_col has shape [2, 3, 4, 3]", "[2, 3, 4, 2]"]),
        ("D", (1,), ["D has shape [1]", "[3]"]),
        ("z", (2, 3, 4), ["z has shape [2, 3, 4]", "[2, 3, 4, 3]"]),
    ],
)
def test_wrong_shape(name, shape, parts):
    with pytest.raises(ValueError, match="selective_scan_2d") as error:
        selective_scan_2d(**scan_2d_arguments(3, 4) | {name: torch.ones(shape, dtype=torch.float64)})
    assert all(part in str(error.value) for part in parts), str(error.value)


@pytest.mark.parametrize("dtype", [torch.int64, torch.bool, torch.complex64])
def test_wrong_dtype(dtype):
    with pytest.raises(TypeError, match=f"u has dtype {dtype}, expected one of"):
        selective_scan_2d(**scan_2d_arguments(3, 4) | {"u": torch.ones(2, 3, 4, 3, dtype=dtype)})


@pytest.mark.parametrize("name", NAMES[1:])
def test_wrong_device(name):
    tensors = scan_2d_arguments(3, 4)
    with pytest.raises(ValueError, match=f"{name} is on meta, expected cpu"):
        selective_scan_2d(**tensors | {name: tensors[name].to("meta")})


def test_wrong_sweeps():
    with pytest.raises(ValueError, match="sweeps is -1, expected None or an integer from 0 below"):
        selective_scan_2d(**scan_2d_arguments(3, 4), sweeps=-1)


def test_wrong_implementation():
    with pytest.raises(ValueError, match=r"^selective_scan_2d: implementation is 'cuda', expected one of"):
        selective_scan_2d(**scan_2d_arguments(3, 4), implementation="cuda")
