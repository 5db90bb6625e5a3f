"""Rates ``[D]``, of which the states have the multiples: as the oracle, and as the same rates written out."""

import itertools

import pytest
import torch
from torch.autograd import gradcheck
from torch.utils.flop_counter import FlopCounterMode

from tests.helpers import assert_close
from tests.ops.inputs import (
    FAST,
    SENSES,
    assert_parity,
    grid,
    pass_arguments,
    rule,
    scan_2d_arguments,
    scan_arguments,
    value_and_gradients,
)
from v2m.ops import directional_pass, selective_scan, selective_scan_2d

# The C++ kernels take up to 16 channels, and states by 1, 4, 8 or 16.
STATES = [1, 3, 8, 16, 17, 40]
RATES = ("A", "A_row", "A_col")
EACH = pytest.mark.parametrize("implementation", FAST)


def written_out(operator, states):
    """The operator with the rates of all states, ``[D, N]``."""

    def run(**arguments):
        for name in arguments.keys() & set(RATES):
            A = arguments[name]
            arguments[name] = torch.stack([(n + 1) * A for n in range(states)], dim=1)
        return operator(**arguments)

    return run


def cases(height, width, batch=2, channels=17, states=5, dtype=torch.float32):
    """Every operator with every option that changes what its kernels do, and its tensors."""
    sizes = dict(batch=batch, channels=channels, states=states, dtype=dtype, is_geometric=True)
    for left_out in ("", "B", "C"):
        tensors = scan_arguments(height, width, **sizes)
        tensors = {name: value for name, value in tensors.items() if name not in left_out}
        yield selective_scan, tensors, dict(delta_softplus=left_out != "C")
    for selects in ("B", "C"):
        yield directional_pass, pass_arguments(height, width, **sizes), dict(selects=selects)
    for sweeps in (None, 2):
        yield selective_scan_2d, scan_2d_arguments(height, width, **sizes), dict(sweeps=sweeps)


def in_sense(operator, axis, reverse):
    if operator is not selective_scan_2d:
        return dict(axis=axis, reverse=reverse)
    return dict(reverse_row=reverse, reverse_col=reverse != (axis == "col"))


@EACH
@pytest.mark.parametrize(("axis", "reverse"), SENSES)
@pytest.mark.parametrize("states", STATES)
def test_parity(states, axis, reverse, implementation):
    for operator, tensors, options in cases(*grid(3, 7, axis), states=states):
        options = options | in_sense(operator, axis, reverse) | dict(implementation=implementation)
        rules = ("float32", "float32 powers gradient" if states > 16 else "float32 gradient")
        assert_parity(operator, tensors, rules=rules, **options, what=f"{operator.__name__}, {options}")


@EACH
@pytest.mark.parametrize(
    ("lines", "length", "channels", "states"), [(1, 1, 1, 1), (2, 70, 3, 4), (1, 130, 33, 8), (7, 1, 16, 33)]
)
def test_parity_of_odd_shapes(lines, length, channels, states, implementation):
    for axis in ("row", "col"):
        for operator, tensors, options in cases(*grid(lines, length, axis), 1, channels, states):
            options = options | in_sense(operator, axis, True) | dict(implementation=implementation)
            assert_parity(operator, tensors, **options, what=f"{operator.__name__}, {options}")


@EACH
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_parity_in_low_precision(dtype, implementation):
    short = str(dtype).removeprefix("torch.")
    for operator, tensors, options in cases(4, 5, dtype=dtype):
        # PyTorch's kernels keep what is between convolution, projection and scan in dtype.
        is_coarse = operator is directional_pass and implementation == "pytorch"
        rules = (f"{short} layers", f"{short} layers gradient") if is_coarse else None
        assert_parity(operator, tensors, rules=rules, **options, implementation=implementation)


@pytest.mark.parametrize("implementation", [*FAST, "reference"])
@pytest.mark.parametrize("states", STATES)
def test_same_as_the_rates_written_out(states, implementation):
    dtype = torch.float64 if implementation == "reference" else torch.float32
    for operator, tensors, options in cases(3, 4, states=states, dtype=dtype):
        options = options | dict(implementation=implementation)
        actual = value_and_gradients(operator, tensors, **options)
        expected = value_and_gradients(written_out(operator, states), tensors, **options)
        for name, value in actual.items():
            what = f"{name} of {operator.__name__}, {options}"
            assert_close(
                value, expected[name], "float64" if dtype == torch.float64 else rule(dtype, name), what
            )


@pytest.mark.parametrize("implementation", [*FAST, "reference"])
@pytest.mark.parametrize("rate", [1e-4, 1.0, 100.0, 1e4])
@pytest.mark.parametrize("step", [1e-6, 0.1, 1.0, 100.0])
def test_tiny_and_large_steps_and_rates(step, rate, implementation):
    rules = ("float32 underflow", "float32 underflow")
    for operator, tensors, options in cases(5, 6, states=17):
        if operator is directional_pass:  # its steps are softplus of a bias, nearly
            bias = torch.tensor(step).double().expm1().log().clamp(max=step).float()
            tensors |= dict(
                delta_bias=torch.full_like(tensors["D"], bias), delta_weight=0 * tensors["delta_weight"]
            )
        else:
            tensors = {name: x for name, x in tensors.items() if name != "delta_bias"}
            options = options | dict(delta_softplus=False)
            tensors |= {name: torch.full_like(x, step) for name, x in tensors.items() if "delta" in name}
        tensors |= {name: torch.full_like(tensors[name], -rate) for name in tensors.keys() & set(RATES)}
        what = f"{operator.__name__}, {options}"
        assert_parity(operator, tensors, rules=rules, what=what, **options, implementation=implementation)


@EACH
def test_all_steps_and_rates_side_by_side(implementation):
    rules = ("float32 underflow", "float32 underflow")
    for operator, tensors, options in cases(20, 6, states=17):
        if operator is directional_pass:
            continue
        tensors = {name: x for name, x in tensors.items() if name != "delta_bias"}
        steps = torch.logspace(-6, 2, tensors["u"].numel())
        for name, value in tensors.items():
            if "delta" in name:
                tensors[name] = steps[torch.randperm(steps.numel())].view_as(value)
            elif name in RATES:
                tensors[name] = -torch.logspace(-4, 4, len(value))
        options = options | dict(delta_softplus=False, implementation=implementation)
        assert_parity(operator, tensors, rules=rules, **options)


@pytest.mark.parametrize("implementation", [*FAST, "reference"])
def test_states_that_grow(implementation):
    """Positive rates are allowed, up to where float32 ends."""
    for operator, tensors, options in cases(2, 3, states=8):
        tensors |= {name: 0.5 * tensors[name].abs() for name in tensors.keys() & set(RATES)}
        assert_parity(operator, tensors, **options, implementation=implementation)


def test_gradient():
    for operator, tensors, options in cases(2, 3, 1, 2, 3, torch.float64):

        def run(*values, operator=operator, names=tuple(tensors), options=options):
            return operator(**dict(zip(names, values, strict=True)), **options, implementation="reference")

        assert gradcheck(run, tuple(value.requires_grad_() for value in tensors.values()))


@pytest.mark.parametrize("implementation", [*FAST, "reference"])
def test_worked_by_hand(implementation):
    """Two cells, steps of 1, A = -ln 2: the three states keep 1/2, 1/4 and 1/8. u = (8, 1), C = (1, 1, 1).

    y = (24, 4 + 2 + 1 + 3).
    """
    u = torch.tensor([8.0, 1.0]).view(1, 1, 2, 1)
    A, C = -torch.tensor([2.0]).log(), torch.ones(1, 1, 2, 3)
    y = selective_scan(u, torch.ones_like(u), A, C=C, implementation=implementation)
    assert_close(y.flatten(), torch.tensor([24.0, 10.0]), "float32")


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_rates_without_a_number_of_states(dtype):
    tensors = scan_arguments(3, 4, dtype=dtype, is_geometric=True)
    del tensors["B"], tensors["C"]
    with pytest.raises(ValueError, match="A has shape") as error:
        selective_scan(**tensors)
    message = "A has shape [3] and neither B nor C is given, expected one of them, or A of shape [D, N]"
    assert str(error.value) == f"selective_scan: {message}"


def test_projection_without_rows_for_the_states():
    tensors = pass_arguments(3, 4, is_geometric=True)
    tensors["proj_weight"] = tensors["proj_weight"][:1]
    with pytest.raises(ValueError, match="proj_weight has shape") as error:
        directional_pass(**tensors, selects="B")
    expected = "expected [R + N, D] with R = 2 as in delta_weight, D = 3 as in x"
    assert str(error.value) == f"directional_pass: proj_weight has shape [1, 3], {expected}"


def test_as_many_operations_as_with_rates_of_every_state():
    for operator, tensors, options in cases(3, 4, states=6):
        counts = []
        for run in (operator, written_out(operator, 6)):
            leaves = {name: value.detach().requires_grad_() for name, value in tensors.items()}
            with FlopCounterMode(display=False) as counter:
                run(**leaves, **options).sum().backward()
            counts.append({k: v for k, v in counter.get_flop_counts()["Global"].items() if "v2m" in str(k)})
        assert len(counts[0]) == 2
        assert counts[0] == counts[1]


def test_exported():
    """With rows of any number: N is known from the weights, and only these."""

    class Module(torch.nn.Module):
        def forward(self, *values):
            return operator(**dict(zip(tensors, values, strict=True)), **options)

    for operator, tensors, options in itertools.islice(cases(3, 4), 0, None, 2):
        values = tuple(tensors.values())
        program = torch.export.export(Module(), values)
        assert_close(program.module()(*values), operator(**tensors, **options), "compiled")
