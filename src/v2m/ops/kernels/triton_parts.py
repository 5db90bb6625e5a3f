"""What the files of Triton kernels share."""

# mypy: allow-untyped-defs, allow-incomplete-defs

import inspect
import math
from collections.abc import Callable

import triton  # type: ignore[import-untyped]
import triton.language as tl  # type: ignore[import-untyped]

LOG2E = tl.constexpr(math.log2(math.e))
LN2 = tl.constexpr(math.log(2))


def kernel(function: Callable[..., None]) -> triton.JITFunction:
    """A kernel that is compiled once for all sizes, strides and alignments."""
    parameters = inspect.signature(function).parameters.values()
    return triton.jit(function, do_not_specialize=[p.name for p in parameters if p.annotation is p.empty])


@triton.jit
def step_size(x, SOFTPLUS: tl.constexpr):
    """softplus(x) and its derivative, or x and 1.

    In softplus(x) = max(x, 0) + log(1 + e) with e = exp(-|x|), rounding 1 + e would lose a small e. The
    logarithm is 2 artanh(e / (2 + e)), whose series takes seven terms to converge.
    """
    if SOFTPLUS:
        e = tl.exp2(tl.abs(x) * -LOG2E)
        s = e / (2.0 + e)
        q = s * s
        tail = q * (1 / 3 + q * (1 / 5 + q * (1 / 7 + q * (1 / 9 + q * (1 / 11 + q * (1 / 13))))))
        return tl.maximum(x, 0.0) + 2.0 * (s + s * tail), tl.where(x < 0, e, 1.0) / (1.0 + e)
    else:
        return x, 1.0


@triton.jit
def load_tile(x, i, size, d, channels):
    """A block of a transposed parameter; zero if there is none."""
    if x is None:
        return 0.0
    else:
        x += i[:, None] * channels + d[None, :]
        return tl.load(x, mask=(i < size)[:, None] & (d < channels)[None, :], other=0.0).to(tl.float32)


@triton.jit
def load_rates(x, i, size, d, channels, GEOMETRIC: tl.constexpr):
    """Rates to the base 2, or as they are where that overflows: infinity times a step of 0 is no number."""
    if GEOMETRIC:
        rates = load_tile(x, i * 0, 1, d, channels)
        scaled = rates * LOG2E * state_powers(i, size)[:, None]
    else:
        rates = load_tile(x, i, size, d, channels)
        scaled = rates * LOG2E
    overflows = (tl.abs(scaled) == float("inf")) & (tl.abs(rates) < float("inf"))
    return tl.where(overflows, rates, scaled)


@triton.jit
def state_powers(i, size):
    """To which power of the first state's decay each state decays, if geometrically; 0 outside."""
    return tl.where(i < size, i + 1, 0)


@triton.jit
def store_rate_gradients(x, index, i, size, d, channels, grad, GEOMETRIC: tl.constexpr):
    """Store the gradients of a block of rates, as the ``index``-th of many."""
    if GEOMETRIC:
        grad = tl.sum(grad * state_powers(i, size)[:, None], 0)
        tl.store(x + index * channels + d, grad, mask=d < channels)
    else:
        x += (index * size + i[:, None]) * channels + d[None, :]
        tl.store(x, grad, mask=(i < size)[:, None] & (d < channels)[None, :])


@triton.jit
def sum_channels(x, HALVINGS: tl.constexpr):
    """The sum of a tile over its channels.

    Adding neighbours until each thread has one number left moves the tile between threads once. A plain sum
    would exchange every number five times.
    """
    for _ in tl.static_range(HALVINGS):
        x0, x1 = tl.split(tl.reshape(x, [x.shape[0], x.shape[1] // 2, 2]))
        x = x0 + x1
    return tl.sum(x, 1)
