"""Random arguments for the operators, and the comparison of an implementation with the reference."""

import pytest
import torch

from tests.helpers import assert_close, has_compiler

SENSES = [(axis, reverse) for axis in ("row", "col") for reverse in (False, True)]
needs_compiler = pytest.mark.skipif(not has_compiler, reason="needs a C++ compiler")
CPU = pytest.param("cpu", marks=needs_compiler)
FAST = [CPU, "pytorch"]


def grid(lines, length, axis):
    """Height and width of a map with so many lines along an axis."""
    return (lines, length) if axis == "row" else (length, lines)


def rates(channels, states, is_geometric):
    """Those of every state, or of every channel, of which states have the multiples."""
    return -torch.rand(*(channels,) if is_geometric else (channels, states)) * 2 - 0.05


def scan_arguments(height, width, batch=2, channels=3, states=2, dtype=torch.float64, is_geometric=False):
    """Every tensor of a selective scan, with moderate positive steps."""
    shape = (batch, height, width)
    tensors = dict(
        u=torch.randn(*shape, channels),
        delta=torch.rand(*shape, channels) + 0.05,
        A=rates(channels, states, is_geometric),
        B=torch.randn(*shape, states),
        C=torch.randn(*shape, states),
        D=torch.randn(channels),
        z=torch.randn(*shape, channels),
        delta_bias=torch.rand(channels),
    )
    return {name: value.to(dtype) for name, value in tensors.items()}


def pass_arguments(
    height, width, batch=2, channels=3, states=2, rank=2, taps=3, dtype=torch.float64, is_geometric=False
):
    """Every tensor of a directional pass."""
    shape = (batch, height, width)
    tensors = dict(
        x=torch.randn(*shape, channels),
        gate=torch.randn(*shape, channels),
        conv_weight=torch.randn(channels, taps) / taps**0.5,
        conv_bias=0.3 * torch.randn(channels),
        proj_weight=torch.randn(rank + states, channels) / channels**0.5,
        delta_weight=torch.randn(channels, rank) / rank**0.5,
        delta_bias=torch.randn(channels) - 1.0,
        A=rates(channels, states, is_geometric),
        D=torch.randn(channels),
    )
    return {name: value.to(dtype) for name, value in tensors.items()}


def scan_2d_arguments(height, width, batch=2, channels=3, states=2, dtype=torch.float64, is_geometric=False):
    """Every tensor of a two-dimensional scan, with moderate positive steps and any coupling in [0, 1]."""
    shape = (batch, height, width)
    tensors = dict(
        u=torch.randn(*shape, channels),
        delta_row=torch.rand(*shape, channels) + 0.05,
        delta_col=torch.rand(*shape, channels) + 0.05,
        A_row=rates(channels, states, is_geometric),
        A_col=rates(channels, states, is_geometric),
        B_row=torch.randn(*shape, states),
        B_col=torch.randn(*shape, states),
        C_row=torch.randn(*shape, states),
        C_col=torch.randn(*shape, states),
        coupling_row=torch.rand(*shape, states),
        coupling_col=torch.rand(*shape, states),
        D=torch.randn(channels),
        z=torch.randn(*shape, channels),
    )
    return {name: value.to(dtype) for name, value in tensors.items()}


def chunk(v):
    return torch.cat([v, torch.full_like(v, torch.nan)], dim=-1).chunk(2, dim=-1)[0]


def permuted(v):
    order = list(range(v.ndim))[::-1]
    return v.permute(order).contiguous().permute(order)


def spaced(v):
    return torch.stack([v, torch.full_like(v, torch.nan)], dim=-1)[..., 0]


def expanded(v):
    return v[:1].expand(v.shape)


VIEWS = [chunk, permuted, spaced, expanded]
"""The same numbers (for ``expanded``, some of them) in other strides."""


def outside_line(y, axis):
    """The cells of a map that are not on the line through cell (2, 3) of sample 1."""
    cells = torch.ones(y.shape[:3], dtype=torch.bool)
    cells[(1, 2) if axis == "row" else (1, slice(None), 3)] = False
    return cells


def value_and_gradients(operator, tensors, **options):
    """The output as ``y``, and the gradient of every tensor under its name."""
    leaves = {name: value.detach().requires_grad_() for name, value in tensors.items()}
    y = operator(**leaves, **options)
    # Quarters, so that no dtype rounds them.
    cotangent = torch.randint(-8, 9, y.shape, generator=torch.Generator().manual_seed(1)) / 4
    gradients = torch.autograd.grad(y, list(leaves.values()), cotangent.to(y.dtype))
    return {"y": y.detach()} | dict(zip(leaves, gradients, strict=True))


def assert_parity(operator, tensors, *, rules=None, what="", **options):
    """Compare output and gradients with those of the reference in float64 on the same numbers.

    ``rules`` are the names in the tolerance table for output and gradients; by default those of results that
    are computed in float32 and rounded once.
    """
    actual = value_and_gradients(operator, tensors, **options)
    doubles = {name: value.double() for name, value in tensors.items()}
    exact = value_and_gradients(operator, doubles, **options | {"implementation": "reference"})
    dtypes = {"y": next(iter(tensors.values())).dtype} | {name: v.dtype for name, v in tensors.items()}
    for name, value in actual.items():
        assert value.dtype == dtypes[name], name
        assert value.is_contiguous() or name != "y"
        assert_close(value, exact[name], rule(value.dtype, name, rules), f"{name}, {what or options}")


def rule(dtype, name, rules=None):
    if rules is not None:
        return rules[name != "y"]
    kind = "gradient" if name != "y" else ""
    short = str(dtype).removeprefix("torch.")
    return f"{short} {kind}".strip() if dtype == torch.float32 else f"{short} {kind or 'rounding'}"
