import numpy as np
import pytest
import torch
from torch.autograd import gradcheck

from tests.helpers import assert_close
from tests.ops.inputs import (
    FAST,
    SENSES,
    VIEWS,
    assert_parity,
    grid,
    outside_line,
    pass_arguments,
    value_and_gradients,
)
from v2m.ops import directional_pass

NAMES = tuple(pass_arguments(1, 1))
SHAPES = [(1, 1), (1, 7), (7, 1), (5, 3)]
# Lines, cells of a line, channels, states, rank, taps. The C++ kernels take 64 cells at a time (32 on the way
# back), and up to 16 channels and 16 states.
CASES = [
    (1, 1, 1, 1, 1, 1),
    (1, 7, 17, 3, 5, 4),
    (7, 1, 40, 5, 1, 3),
    (5, 3, 17, 16, 5, 4),
    (14, 14, 40, 16, 1, 4),
    (2, 5, 40, 33, 5, 3),
    (2, 70, 17, 3, 5, 4),
    (1, 130, 40, 5, 1, 3),
]


def plain_line(x, gate, p, is_first):
    """One line ``[L, D]`` in the order of its scan, one cell at a time."""
    taps, rank = p["conv_weight"].shape[1], p["delta_weight"].shape[1]
    h, y = np.zeros(p["A"].shape), np.empty_like(x)
    for t in range(len(x)):
        v = p["conv_bias"].copy()
        for k in range(taps):
            if t - (taps - 1) + k >= 0:
                v += p["conv_weight"][:, k] * x[t - (taps - 1) + k]
        s = v / (1 + np.exp(-v))
        low = p["proj_weight"] @ s
        dt = np.logaddexp(0.0, p["delta_weight"] @ low[:rank] + p["delta_bias"])
        B, C = (low[rank:], np.ones(h.shape[1])) if is_first else (np.ones(h.shape[1]), low[rank:])
        h = np.exp(dt[:, None] * p["A"]) * h + np.outer(dt * s, B)
        y[t] = (h @ C + p["D"] * s) * gate[t]
    return y


def plain(tensors, selects, axis, reverse):
    """A second opinion in float64."""
    p = {name: value.double().numpy() for name, value in tensors.items()}
    y = np.empty_like(p["x"])
    order = slice(None, None, -1) if reverse else slice(None)
    for b in range(y.shape[0]):
        for i in range(y.shape[1 if axis == "row" else 2]):
            at = (b, i, order) if axis == "row" else (b, order, i)
            y[at] = plain_line(p["x"][at], p["gate"][at], p, selects == "B")
    return torch.from_numpy(y)


@pytest.mark.parametrize(("axis", "reverse"), SENSES)
@pytest.mark.parametrize("selects", ["B", "C"])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("taps", [1, 4])
def test_reference_equals_the_formula(shape, taps, selects, axis, reverse):
    tensors = pass_arguments(*shape, rank=3, taps=taps)
    y = directional_pass(**tensors, selects=selects, axis=axis, reverse=reverse)
    assert_close(y, plain(tensors, selects, axis, reverse), "float64")


@pytest.mark.parametrize(("axis", "reverse"), SENSES)
@pytest.mark.parametrize("selects", ["B", "C"])
def test_reference_gradients(selects, axis, reverse):
    tensors = pass_arguments(3, 2, batch=1, channels=2)

    def run(*values):
        options = dict(selects=selects, axis=axis, reverse=reverse, implementation="reference")
        return directional_pass(**dict(zip(tensors, values, strict=True)), **options)

    assert gradcheck(run, tuple(value.requires_grad_() for value in tensors.values()))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_defaults(dtype):
    tensors = pass_arguments(3, 4, dtype=dtype)
    x, gate, *parameters = tensors.values()
    y = directional_pass(x, *parameters, gate=gate, selects="C")
    assert torch.equal(y, directional_pass(**tensors, selects="C", axis="row", reverse=False))
    assert y.dtype == dtype
    with pytest.raises(TypeError, match="selects"):
        directional_pass(**tensors)


@pytest.mark.parametrize("implementation", FAST)
@pytest.mark.parametrize(("axis", "reverse"), SENSES)
@pytest.mark.parametrize("selects", ["B", "C"])
@pytest.mark.parametrize("case", CASES)
def test_parity(case, selects, axis, reverse, implementation):
    lines, length, *sizes = case
    tensors = pass_arguments(*grid(lines, length, axis), 2, *sizes, dtype=torch.float32)
    options = dict(selects=selects, axis=axis, reverse=reverse)
    assert_parity(directional_pass, tensors, **options, implementation=implementation)


@pytest.mark.parametrize("implementation", FAST)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("selects", ["B", "C"])
def test_parity_in_low_precision(selects, dtype, implementation):
    tensors = pass_arguments(5, 6, 2, 40, 5, 3, 4, dtype=dtype)
    rules = None
    if implementation == "pytorch":  # keeps what is between convolution, projection and scan in dtype
        short = str(dtype).removeprefix("torch.")
        rules = (f"{short} layers", f"{short} layers gradient")
    for axis, reverse in SENSES:
        options = dict(selects=selects, axis=axis, reverse=reverse)
        assert_parity(directional_pass, tensors, rules=rules, **options, implementation=implementation)


@pytest.mark.parametrize("implementation", FAST)
@pytest.mark.parametrize("name", NAMES[1:])
def test_dtypes_may_differ(name, implementation):
    tensors = pass_arguments(4, 3, dtype=torch.float32)
    tensors[name] = tensors[name].bfloat16()
    assert_parity(directional_pass, tensors, selects="B", implementation=implementation)


@pytest.mark.parametrize("implementation", FAST)
@pytest.mark.parametrize("selects", ["B", "C"])
def test_map_of_another_dtype_than_the_parameters(selects, implementation):
    tensors = pass_arguments(4, 3, channels=9, dtype=torch.float32)
    tensors |= {"x": tensors["x"].bfloat16(), "gate": tensors["gate"].half()}
    rules = ("bfloat16 layers", "bfloat16 layers gradient") if implementation == "pytorch" else None
    assert_parity(directional_pass, tensors, rules=rules, selects=selects, implementation=implementation)


def test_reference_with_another_dtype_than_the_parameters():
    tensors = pass_arguments(4, 3, dtype=torch.float32)
    tensors["x"] = tensors["x"].bfloat16()
    y = directional_pass(**tensors, selects="B", implementation="reference")
    exact = directional_pass(**tensors | {"x": tensors["x"].float()}, selects="B", implementation="reference")
    assert y.dtype == torch.bfloat16
    assert torch.equal(y, exact.bfloat16())


@pytest.mark.parametrize("implementation", [*FAST, "reference"])
@pytest.mark.parametrize("axis", ["row", "col"])
@pytest.mark.parametrize("view", VIEWS)
def test_strided_arguments(view, axis, implementation):
    dtype = torch.float64 if implementation == "reference" else torch.float32
    tensors = {name: view(value) for name, value in pass_arguments(5, 4, dtype=dtype).items()}
    assert not any(value.is_contiguous() for value in tensors.values() if value.ndim > 1)
    options = dict(selects="C", axis=axis, reverse=True, implementation=implementation)
    actual = value_and_gradients(directional_pass, tensors, **options)
    contiguous = {name: value.clone(memory_format=torch.contiguous_format) for name, value in tensors.items()}
    expected = value_and_gradients(directional_pass, contiguous, **options)
    rule = "float64" if implementation == "reference" else "float32"
    for name, value in actual.items():
        assert_close(value, expected[name], rule, name)


@pytest.mark.parametrize("implementation", FAST)
def test_expanded_argument_gets_summed_gradient(implementation):
    tensors = pass_arguments(3, 4, dtype=torch.float32)
    gate = torch.randn(3, requires_grad=True)
    tensors["gate"] = gate.expand(2, 3, 4, 3)
    whole = tensors["gate"].detach().clone().requires_grad_()
    directional_pass(**tensors, selects="B", implementation=implementation).sum().backward()
    tensors["gate"] = whole
    directional_pass(**tensors, selects="B", implementation=implementation).sum().backward()
    assert_close(gate.grad, whole.grad.sum((0, 1, 2)), "float32")


@pytest.mark.parametrize("implementation", FAST)
def test_cotangent_of_any_strides(implementation):
    tensors = {k: v.requires_grad_() for k, v in pass_arguments(3, 4, dtype=torch.float32).items()}
    y = directional_pass(**tensors, selects="B", implementation=implementation)
    cotangent = torch.randn(3, 4, 3, 2).permute(3, 0, 1, 2)
    actual = torch.autograd.grad(y, list(tensors.values()), cotangent, retain_graph=True)
    expected = torch.autograd.grad(y, list(tensors.values()), cotangent.contiguous())
    for name, got, want in zip(tensors, actual, expected, strict=True):
        assert_close(got, want, "float32", name)


@pytest.mark.parametrize("implementation", [*FAST, "reference"])
@pytest.mark.parametrize("axis", ["row", "col"])
def test_empty_batch(axis, implementation):
    tensors = pass_arguments(3, 4, batch=0, dtype=torch.float32)
    options = dict(selects="B", axis=axis, implementation=implementation)
    actual = value_and_gradients(directional_pass, tensors, **options)
    assert actual.pop("y").shape == (0, 3, 4, 3)
    for name, gradient in actual.items():
        assert gradient.shape == tensors[name].shape
        assert gradient.abs().sum() == 0, name


@pytest.mark.parametrize("implementation", FAST)
@pytest.mark.parametrize(("axis", "reverse"), SENSES)
def test_nan_stays_in_its_line(axis, reverse, implementation):
    options = dict(selects="B", axis=axis, reverse=reverse, implementation=implementation)
    clean = pass_arguments(5, 6, channels=17, dtype=torch.float32)
    dirty = {name: value.clone() for name, value in clean.items()}
    dirty["x"][1, 2, 3, 0] = torch.nan
    expected = value_and_gradients(directional_pass, clean, **options)
    actual = value_and_gradients(directional_pass, dirty, **options)
    others = outside_line(expected["y"], axis)
    for name in ("y", "x", "gate"):
        assert torch.equal(actual[name][others], expected[name][others]), name
    wanted = directional_pass(**dirty, **options | {"implementation": "reference"})
    assert torch.equal(actual["y"].isnan(), wanted.isnan())
    assert_close(actual["y"].nan_to_num(), wanted.nan_to_num(), "float32")


def test_arguments_are_left_alone():
    tensors = pass_arguments(3, 4, dtype=torch.float32)
    copies = {name: value.clone() for name, value in tensors.items()}
    value_and_gradients(directional_pass, tensors, selects="B", axis="col", reverse=True)
    assert all(torch.equal(tensors[name], copies[name]) for name in tensors)


# Of maps [2, 3, 4, 3], with 2 states, rank 2 and 3 taps.
@pytest.mark.parametrize(
    ("name", "shape", "message"),
    [
        ("x", (3, 4, 3), "x has shape [3, 4, 3], expected a non-empty map [B, H, W, D]"),
        ("x", (2, 0, 4, 3), "x has shape [2, 0, 4, 3], expected a non-empty map [B, H, W, D]"),
        ("x", (2, 3, 0, 3), "x has shape [2, 3, 0, 3], expected a non-empty map [B, H, W, D]"),
        ("gate", (2, 3, 4, 1), "gate has shape [2, 3, 4, 1], expected [2, 3, 4, 3] (as x)"),
        ("conv_weight", (3, 1, 3), "conv_weight has shape [3, 1, 3], expected [D, K]"),
        ("conv_weight", (3, 0), "conv_weight has shape [3, 0], expected [3, 1] ([D, K])"),
        ("conv_bias", (1,), "conv_bias has shape [1], expected [3] ([D])"),
        ("proj_weight", (5, 3), "proj_weight has shape [5, 3], expected [4, 3] ([R + N, D])"),
        ("proj_weight", (3, 4), "proj_weight has shape [3, 4], expected [4, 3] ([R + N, D])"),
        ("delta_weight", (4, 2), "delta_weight has shape [4, 2], expected [3, 2] ([D, R])"),
        ("delta_bias", (3, 1), "delta_bias has shape [3, 1], expected [3] ([D])"),
        ("A", (4, 2), "A has shape [4, 2], expected [3, 2] ([D, N])"),
        ("D", (), "D has shape [], expected [3] ([D])"),
        *((name, (), f"{name} has shape []") for name in ("conv_weight", "delta_weight", "A")),
        ("A", (3, 2, 1), "A has shape [3, 2, 1], expected [D, N] or [D] with D = 3 as in x"),
        ("A", (4,), "A has shape [4], expected [3] ([D]) with D = 3 as in x"),
    ],
)
def test_wrong_shape(name, shape, message):
    tensors = pass_arguments(3, 4) | {name: torch.ones(shape, dtype=torch.float64)}
    with pytest.raises(ValueError, match="directional_pass") as error:
        directional_pass(**tensors, selects="B")
    assert str(error.value).startswith(f"directional_pass: {message}")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("option", "message"),
    [
        (dict(selects="D"), "selects is 'D', expected 'B' or 'C'"),
        (dict(selects=None), "selects is None, expected 'B' or 'C'"),
        (dict(axis="rows"), "axis is 'rows', expected 'row' or 'col'"),
        (dict(axis=1), "axis is 1, expected 'row' or 'col'"),
        (
            dict(implementation="cuda"),
            "implementation is 'cuda', expected one of 'reference', 'cpu', 'triton', 'pytorch'",
        ),
        (
            dict(implementation="cpu"),
            "implementation 'cpu' takes no float64, expected 'reference'",
        ),
    ],
)
def test_wrong_option(option, message):
    with pytest.raises(ValueError, match="directional_pass") as error:
        directional_pass(**pass_arguments(3, 4), **{"selects": "B"} | option)
    assert str(error.value) == f"directional_pass: {message}"


@pytest.mark.parametrize("dtype", [torch.int64, torch.bool, torch.complex64])
def test_wrong_dtype(dtype):
    with pytest.raises(TypeError, match=f"directional_pass: x has dtype {dtype}, expected one of"):
        directional_pass(**pass_arguments(3, 4) | {"x": torch.ones(2, 3, 4, 3, dtype=dtype)}, selects="B")


@pytest.mark.parametrize("name", NAMES[1:])
def test_wrong_device(name):
    tensors = pass_arguments(3, 4)
    tensors[name] = tensors[name].to("meta")
    with pytest.raises(ValueError, match=f"^directional_pass: {name} is on meta, expected cpu as x$"):
        directional_pass(**tensors, selects="B")
