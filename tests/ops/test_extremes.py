"""Every finite number: implementations have what the reference has, and nothing finite where it has none."""

import subprocess
import sys
from functools import partial

import pytest
import torch

from tests.ops.inputs import (
    FAST,
    grid,
    pass_arguments,
    scan_2d_arguments,
    scan_arguments,
    value_and_gradients,
)
from v2m.ops import directional_pass, selective_scan, selective_scan_2d

LARGEST = torch.finfo(torch.float32).max
SUBNORMAL = 2.0**-149
MAGNITUDES = (0.0, SUBNORMAL, 1e-38, 87.0, 89.5, 100.0, 1e4, 1e19, 1e38, LARGEST)
EXTREMES = [sign * value for value in MAGNITUDES for sign in (1, -1)]
OPERATORS = {
    "scan": (selective_scan, scan_arguments, dict(delta_softplus=True)),
    "scan, raw steps": (selective_scan, scan_arguments, dict(reverse=True)),
    "geometric scan": (selective_scan, partial(scan_arguments, is_geometric=True), dict(axis="col")),
    "geometric pass": (directional_pass, partial(pass_arguments, is_geometric=True), dict(selects="C")),
    "pass of B": (directional_pass, pass_arguments, dict(selects="B")),
    "pass of C": (directional_pass, pass_arguments, dict(selects="C", axis="col")),
    "coupled": (selective_scan_2d, scan_2d_arguments, dict(delta_softplus=True)),
    "swept": (selective_scan_2d, scan_2d_arguments, dict(sweeps=2, reverse_row=True)),
    "geometric coupled": (selective_scan_2d, partial(scan_2d_arguments, is_geometric=True), {}),
}
EACH = pytest.mark.parametrize("implementation", FAST)


def assert_as_the_reference(operator, tensors, implementation, what, **options):
    """Close where the reference is finite and well conditioned; not finite where float32 holds no result."""

    def computed(values, name="reference"):
        return value_and_gradients(operator, values, implementation=name, **options)

    doubles = {name: value.double() for name, value in tensors.items()}
    torch.manual_seed(0)
    nearby = {name: value * (1 + 1e-6 * torch.randn_like(value)) for name, value in doubles.items()}
    single, exact, near = computed(tensors), computed(doubles), computed(nearby)
    for name, actual in computed(tensors, implementation).items():
        expected, actual = exact[name], actual.double()
        rounded = single[name].double()
        change = (near[name] - expected).abs().nan_to_num(torch.inf, torch.inf)
        size = torch.maximum(expected.abs(), rounded.abs())
        agree = (rounded - expected).abs() <= 1e-4 * size  # both are finite then
        limit = 1e-3 * size + 100 * change + 2 * SUBNORMAL
        # Sums are made in another order: what they pass through has to stay below the largest number too.
        agree &= size + 100 * change < LARGEST / 4
        wrong = agree & ~((actual - expected).abs() <= limit)
        no_number = ~rounded.isfinite() & ~(expected.abs() - 100 * change <= LARGEST)
        made_up = no_number & ~(100 * change > 0.1 * expected.abs()) & actual.isfinite()
        for mask in (wrong, made_up):
            at = mask.nonzero().tolist()[:1]
            values = [(*(x[tuple(i)].item() for x in (actual, rounded, expected)),) for i in at]
            assert not at, f"{what}, {name}{at}: (got, float32, float64) = {values}"


@EACH
@pytest.mark.parametrize("case", OPERATORS)
@pytest.mark.parametrize(
    "extremes", [[-1e38, -100.0], pytest.param(EXTREMES, marks=pytest.mark.slow)], ids=["few", "all"]
)
def test_one_extreme_number_in_every_argument(extremes, case, implementation):
    operator, arguments, options = OPERATORS[case]
    torch.manual_seed(1)
    tensors = arguments(3, 2, batch=1, channels=3, states=2, dtype=torch.float32)
    for name, tensor in tensors.items():
        for extreme in extremes:
            changed = tensor.clone()
            changed.view(-1)[tensor.numel() // 2] = extreme
            assert_as_the_reference(
                operator, tensors | {name: changed}, implementation, f"{extreme} in {name}", **options
            )


@EACH
def test_large_negative_inputs_of_silu_give_nothing(implementation):
    x = torch.tensor([-1e38, -LARGEST, -100.0, 1e38]).view(1, 1, 1, 4)
    one, nothing = torch.ones(4), torch.zeros(4)
    y = directional_pass(
        x,
        one.unsqueeze(1),
        nothing,
        torch.zeros(2, 4),
        torch.zeros(4, 1),
        nothing,
        -one.unsqueeze(1),
        one,
        gate=torch.ones_like(x),
        selects="B",
        implementation=implementation,
    )
    torch.testing.assert_close(y, torch.tensor([0.0, 0.0, 0.0, 1e38]).view(1, 1, 1, 4))


@EACH
def test_slopes_of_small_steps(implementation):
    """softplus is e^x there, and so is its derivative, though 1 / (1 + e^-x) is 0 in float32."""
    delta = torch.tensor([-90.0, -100.0]).view(1, 1, 2, 1).requires_grad_()
    u = torch.full_like(delta, 1e38).detach()
    y = selective_scan(u, delta, -torch.ones(1, 1), delta_softplus=True, implementation=implementation)
    (slope,) = torch.autograd.grad(y.sum(), delta)
    # The first step is in both outputs. Of the second slope float32 has six bits.
    expected = 1e38 * delta.detach().double().exp() * torch.tensor([2.0, 1.0]).view(1, 1, 2, 1)
    torch.testing.assert_close(slope.double(), expected, rtol=3e-2, atol=0)


@EACH
@pytest.mark.parametrize("rate", [torch.inf, -torch.inf, torch.nan])
@pytest.mark.parametrize("case", OPERATORS)
def test_rates_that_are_no_numbers_give_none(case, rate, implementation):
    operator, arguments, options = OPERATORS[case]
    torch.manual_seed(2)
    tensors = arguments(2, 3, channels=3, states=2, dtype=torch.float32)
    for name in set(tensors) & {"A", "A_row", "A_col"}:
        changed = tensors[name].clone()
        changed[1] = rate
        results = [
            operator(**tensors | {name: changed}, **options, implementation=i)
            for i in ("reference", implementation)
        ]
        assert torch.equal(*(y.isfinite() for y in results))


@EACH
@pytest.mark.parametrize("case", OPERATORS)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_low_precision_has_numbers_where_the_reference_has(case, dtype, implementation):
    operator, arguments, options = OPERATORS[case]
    torch.manual_seed(3)
    tensors = arguments(3, 2, channels=3, states=2, dtype=dtype)
    first = next(iter(tensors))
    tensors[first] = tensors[first] * 1e4  # up to 30000 or so
    for name in tensors:
        if name in ("C", "C_row", "C_col", "D", "gate", "z", "proj_weight"):
            tensors[name] = tensors[name] * 1e-4
    expected = value_and_gradients(operator, tensors, implementation="reference", **options)
    actual = value_and_gradients(operator, tensors, implementation=implementation, **options)
    for name, value in expected.items():
        assert actual[name][value.isfinite()].isfinite().all(), name


@EACH
def test_float16_is_convolved_in_float32(implementation):
    tensors = pass_arguments(2, 3, dtype=torch.float16)
    tensors["x"] = tensors["x"].abs() * 1e4
    tensors["conv_weight"] = tensors["conv_weight"].abs() * 10
    tensors["gate"], tensors["proj_weight"] = tensors["gate"] * 1e-3, tensors["proj_weight"] * 1e-4
    expected = directional_pass(**tensors, selects="B", implementation="reference")
    assert expected.isfinite().all()
    y = directional_pass(**tensors, selects="B", implementation=implementation)
    torch.testing.assert_close(y, expected, rtol=1e-2, atol=1e-2)


@EACH
@pytest.mark.parametrize("case", OPERATORS)
@pytest.mark.parametrize("sizes", [dict(batch=0), dict(states=0), dict(batch=0, states=0)])
def test_nothing_to_compute(case, sizes, implementation):
    operator, arguments, options = OPERATORS[case]
    torch.manual_seed(4)
    tensors = arguments(2, 3, **sizes, dtype=torch.float32)
    expected = value_and_gradients(operator, tensors, implementation="reference", **options)
    actual = value_and_gradients(operator, tensors, implementation=implementation, **options)
    for name, value in actual.items():
        torch.testing.assert_close(value, expected[name], msg=name)


@EACH
def test_pass_of_rank_zero(implementation):
    tensors = pass_arguments(2, 3, rank=0, dtype=torch.float32)
    expected = directional_pass(**tensors, selects="B", implementation="reference")
    torch.testing.assert_close(
        directional_pass(**tensors, selects="B", implementation=implementation), expected
    )


@EACH
def test_more_sweeps_than_any_path_has_turns(implementation):
    tensors = scan_2d_arguments(3, 4, dtype=torch.float32)
    coupled = selective_scan_2d(**tensors, implementation="reference")
    for name in (implementation, "reference"):
        torch.testing.assert_close(selective_scan_2d(**tensors, sweeps=10**9, implementation=name), coupled)


@EACH
def test_infinity_beyond_the_channels_reaches_no_others(implementation):
    """What fills up a vector of channels must not become NaN where a low-rank step overflows."""
    tensors = pass_arguments(*grid(1, 3, "row"), batch=1, channels=3, rank=1, dtype=torch.float32)
    tensors["proj_weight"][0] = 3e38
    tensors["conv_bias"][:] = 4.0
    tensors["delta_weight"][:] = -1.0
    expected = value_and_gradients(directional_pass, tensors, selects="C", implementation="reference")
    actual = value_and_gradients(directional_pass, tensors, selects="C", implementation=implementation)
    for name, value in expected.items():
        assert actual[name][value.isfinite()].isfinite().all(), name


HOSTILE = """
import torch
from v2m.ops import selective_scan
u = torch.zeros(1, 2, 3, 4)
try:
    selective_scan(u, None, -torch.ones(4, 2))
except TypeError as error:
    print(error)
"""


def test_none_for_a_tensor_does_not_kill_the_process():
    done = subprocess.run([sys.executable, "-c", HOSTILE], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "selective_scan: delta is None, expected a tensor\n"


WRONG = {
    "None": (lambda x: None, "is None, expected a tensor"),
    "a string": (lambda x: "x", "is 'x', expected a tensor"),
    "a list": (lambda x: x.tolist(), "expected a tensor"),
    "an array": (lambda x: x.numpy(), "expected a tensor"),
    "sparse": (lambda x: x.to_sparse(), "is of layout torch.sparse_coo, expected a dense tensor"),
    "nested": (lambda x: torch.nested.nested_tensor([x, x]), "is nested, expected a dense tensor"),
    "complex": (lambda x: x.to(torch.complex64), "has dtype torch.complex64, expected"),
    "integers": (lambda x: x.int(), "has dtype torch.int32, expected"),
    "quantised": (lambda x: torch.quantize_per_tensor(x, 0.1, 0, torch.quint8), "has dtype torch.quint8"),
}


@pytest.mark.filterwarnings("ignore")  # PyTorch's, of nested and quantised tensors
@pytest.mark.parametrize("wrong", WRONG)
@pytest.mark.parametrize("case", ["scan", "pass of B", "coupled"])
def test_what_is_no_dense_floating_point_tensor(case, wrong):
    operator, arguments, options = OPERATORS[case]
    change, message = WRONG[wrong]
    tensors = arguments(2, 3, dtype=torch.float32)
    optional = {"B", "C", "D", "z", "delta_bias"} if case != "pass of B" else {"gate"}
    for name in set(tensors) - (optional if wrong == "None" else set()):
        with pytest.raises(TypeError, match=rf"^{operator.__name__}: {name} ") as error:
            operator(**tensors | {name: change(tensors[name])}, **options)
        assert message in str(error.value)
        assert "\n" not in str(error.value)


@pytest.mark.parametrize("case", ["scan", "pass of B", "coupled"])
@pytest.mark.parametrize("value", ["yes", 1, None, torch.ones(2)])
def test_flags_are_true_or_false(case, value):
    operator, arguments, options = OPERATORS[case]
    name = "reverse_row" if case == "coupled" else "reverse"
    with pytest.raises(TypeError, match=rf"^{operator.__name__}: {name} is .*, expected True or False$"):
        operator(**arguments(2, 3), **options | {name: value})


@pytest.mark.parametrize("case", ["scan", "pass of B", "coupled"])
def test_no_channels(case):
    operator, arguments, options = OPERATORS[case]
    with pytest.raises(ValueError, match=r"expected a non-empty map \[B, H, W, D\]"):
        operator(**arguments(2, 3, channels=0), **options)


@pytest.mark.parametrize("sweeps", [2**31, 2**70, "3", 1.5, float("nan")])
def test_sweeps_are_a_number_that_fits(sweeps):
    with pytest.raises(ValueError, match=r"sweeps is .*, expected None or an integer from 0 below 2\*\*31"):
        selective_scan_2d(**scan_2d_arguments(2, 3), sweeps=sweeps)


def test_an_implementation_is_a_name():
    with pytest.raises(ValueError, match=r"implementation is of type Tensor, expected one of [^\n]*$"):
        selective_scan(**scan_arguments(2, 3), implementation=torch.ones(20))
