"""One meaning of a gate in all operators: ``z`` goes through silu, ``gate`` is a factor taken as it is."""

import pytest
import torch
import torch.nn.functional as F

from tests.helpers import assert_close
from tests.ops.inputs import (
    FAST,
    assert_parity,
    pass_arguments,
    scan_2d_arguments,
    scan_arguments,
    value_and_gradients,
)
from v2m.ops import directional_pass, selective_scan, selective_scan_2d

EACH = pytest.mark.parametrize(
    ("operator", "arguments", "options"),
    [
        pytest.param(selective_scan, scan_arguments, dict(delta_softplus=True), id="scan"),
        pytest.param(directional_pass, pass_arguments, dict(selects="B"), id="pass"),
        pytest.param(selective_scan_2d, scan_2d_arguments, dict(delta_softplus=True), id="scan_2d"),
    ],
)
USE = "expected z, to which silu is applied, or gate, a factor taken as it is"


def gated(arguments, name, dtype=torch.float32):
    """The tensors of an operator with its gate under one of both names, and the other tensors."""
    tensors = arguments(3, 4, dtype=dtype)
    value = tensors.pop("gate" if "gate" in tensors else "z")
    return {name: value, **tensors}, tensors


@EACH
def test_z_is_activated_and_a_gate_is_not(operator, arguments, options):
    """Against a gate of ones, which leaves the output as it is."""
    tensors, others = gated(arguments, "z", torch.float64)
    z = tensors["z"]
    plain = operator(**others, **options, gate=torch.ones_like(z))
    assert_close(operator(**others, **options, gate=z), plain * z, "float64")
    assert_close(operator(**others, **options, z=z), plain * F.silu(z), "float64")


@pytest.mark.parametrize("implementation", [*FAST, "reference"])
@pytest.mark.parametrize("name", ["gate", "z"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@EACH
def test_parity(operator, arguments, options, dtype, name, implementation):
    others = gated(arguments, name, dtype)[1]
    tensors = others | {name: torch.randn(2, 3, 4, 3).to(dtype)}  # the map stays first, which tells the dtype
    rules = None
    if operator is directional_pass and dtype == torch.bfloat16 and implementation == "pytorch":
        rules = ("bfloat16 layers", "bfloat16 layers gradient")
    assert_parity(operator, tensors, rules=rules, **options, implementation=implementation)


@pytest.mark.parametrize("implementation", [*FAST, "reference"])
@EACH
def test_an_activated_z_as_a_gate_gives_the_same_bits(operator, arguments, options, implementation):
    tensors, others = gated(arguments, "z")
    options = options | dict(implementation=implementation)
    gate = F.silu(tensors["z"])
    assert torch.equal(operator(**tensors, **options), operator(**others, gate=gate, **options))


@pytest.mark.parametrize("name", ["gate", "z"])
@EACH
def test_gradients_of_gradients(operator, arguments, options, name):
    def penalty(tensors, implementation):
        leaves = [x.detach().requires_grad_() for x in tensors.values()]
        y = operator(**dict(zip(tensors, leaves, strict=True)), **options, implementation=implementation)
        gradients = torch.autograd.grad(y.square().sum(), leaves, create_graph=True)
        return torch.autograd.grad(sum(g.square().sum() for g in gradients), leaves)

    tensors, _ = gated(arguments, name)
    expected = penalty({key: value.double() for key, value in tensors.items()}, "reference")
    for actual, right in zip(penalty(tensors, "pytorch"), expected, strict=True):
        assert_close(actual, right, "float32 gradient")


@EACH
def test_both_at_once(operator, arguments, options):
    tensors, _ = gated(arguments, "z")
    with pytest.raises(TypeError) as error:
        operator(**tensors, gate=tensors["z"], **options)
    assert str(error.value) == f"{operator.__name__}: gate and z are both given, {USE}"


def test_a_pass_needs_one():
    _, others = gated(pass_arguments, "z")
    with pytest.raises(TypeError) as error:
        directional_pass(**others, selects="B")
    assert str(error.value) == f"directional_pass: gate and z are both None, {USE}"


@pytest.mark.parametrize(
    ("operator", "arguments"), [(selective_scan, scan_arguments), (selective_scan_2d, scan_2d_arguments)]
)
def test_a_scan_needs_none(operator, arguments):
    tensors, others = gated(arguments, "gate")
    ones = torch.ones_like(tensors["gate"])
    assert torch.equal(operator(**others), operator(**others, gate=ones))


@pytest.mark.parametrize("name", ["gate", "z"])
@EACH
def test_errors_name_the_one_that_was_given(operator, arguments, options, name):
    _, others = gated(arguments, name)
    first = next(iter(others))
    for wrong, kind, message in [
        (
            torch.ones(2, 3, 4, 1),
            ValueError,
            f"{name} has shape [2, 3, 4, 1], expected [2, 3, 4, 3] (as {first})",
        ),
        (
            torch.ones(2, 3, 4, 3, dtype=torch.int32),
            TypeError,
            f"{name} has dtype torch.int32, expected floating point",
        ),
        (torch.ones(2, 3, 4, 3, device="meta"), ValueError, f"{name} is on meta, expected cpu as {first}"),
        ([1.0], TypeError, f"{name} is [1.0], expected a tensor"),
    ]:
        with pytest.raises(kind) as error:
            operator(**others, **options, **{name: wrong})
        assert str(error.value) == f"{operator.__name__}: {message}"


@pytest.mark.parametrize("name", ["gate", "z"])
@EACH
def test_left_out_means_none(operator, arguments, options, name):
    tensors, others = gated(arguments, name)
    other = "z" if name == "gate" else "gate"
    expected = value_and_gradients(operator, tensors, **options)
    y = operator(**others, **options, **{name: tensors[name], other: None})
    assert torch.equal(y, expected["y"])
