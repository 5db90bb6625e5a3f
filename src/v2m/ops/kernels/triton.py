"""The GPU kernels, in Triton: float32 inside, whatever the dtypes of the tensors.

A program walks along a line with a block of channels. The t-th cell of a line is at position
``first + step * t``, and no size or stride is compiled in: one binary serves all grids and directions.

Each thread holds 16 states, of one channel or of several, so that sums over states stay within it. The scans
take two cells at a time: two rows of B, C or the low-rank step sizes, which all channels need, are numbers
enough for a warp to read each once and share them. Of a single row, every thread would read every number.
"""

# mypy: allow-untyped-defs, allow-incomplete-defs, disable-error-code="assignment"
# Kernels have no types that mypy knows, and collect tensors in tuples that grow.

import math
from itertools import chain

import torch
import triton  # type: ignore[import-untyped]
import triton.language as tl  # type: ignore[import-untyped]
from torch import Tensor

from v2m.ops.directional.arguments import PassInputs
from v2m.ops.kernels.composed import compose_backward, compose_forward
from v2m.ops.kernels.triton_2d import scan_2d_backward as scan_2d_backward
from v2m.ops.kernels.triton_2d import scan_2d_forward as scan_2d_forward
from v2m.ops.kernels.triton_parts import (
    LN2,
    LOG2E,
    kernel,
    load_rates,
    load_tile,
    state_powers,
    step_size,
    store_rate_gradients,
    sum_channels,
)
from v2m.ops.scan.arguments import ScanInputs

# Backward programs to a multiprocessor: as many as their registers let run at once, for each takes memory.
SCAN_PROGRAMS, CONV_PROGRAMS = 8, 16
# Pairs of cells up to which the backward scan keeps all states of a line; above, it keeps checkpoints.
WHOLE_LINE = 32
# Cells that a program of the convolution holds at once.
SEGMENT = 8


def pass_forward(p: PassInputs) -> Tensor:
    """The output ``[B, H, W, D]``."""
    return compose_forward(p, conv_silu_forward, scan_forward)


def pass_backward(grad: Tensor, p: PassInputs) -> PassInputs:
    """The gradients of the tensors, given that of the output."""
    return compose_backward(grad, p, conv_silu_forward, conv_silu_backward, scan_backward)


def scan_forward(s: ScanInputs) -> Tensor:
    """The output ``[B, H, W, D]``."""
    call = _ScanCall(s)
    y = torch.empty(s.u.shape, dtype=s.u.dtype, device=s.u.device)
    with torch.cuda.device_of(y):
        _scan_fwd_kernel[(call.lines * call.blocks,)](*call.inputs, y, *call.sizes, **call.constants)
    return y


def scan_backward(grad: Tensor, s: ScanInputs) -> ScanInputs:
    """The gradients of the tensors, given that of the output."""
    call = _ScanCall(s, is_backward=True)
    shape = s.u.shape
    # A long line keeps about as many checkpoints as it has pairs between two of them, the root of all pairs.
    pairs = triton.cdiv(call.length, 2)
    chunk = pairs if pairs <= WHOLE_LINE else math.isqrt(pairs - 1) + 1
    chunks = triton.cdiv(pairs, chunk)
    groups = _groups(SCAN_PROGRAMS, call.lines, call.blocks, grad.device)

    def empty(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
        return torch.empty(shape, dtype=dtype, device=grad.device)

    du, ddelta = empty(*shape, dtype=s.u.dtype), empty(*shape)
    dgate = None if s.gate is None else empty(*shape, dtype=s.gate.dtype)
    dB, dC = (None if x is None else empty(call.blocks, *shape[:3], s.states) for x in (s.B, s.C))
    # Each group of programs sums over its lines, each block above over its channels; PyTorch adds them up.
    dA, dD = empty(groups, *s.A.t().shape), None if s.D is None else empty(groups, shape[-1])
    scratch = empty(groups * call.blocks, chunks + chunk, call.tile)
    with torch.cuda.device_of(grad):
        _scan_bwd_kernel[(groups * call.blocks,)](
            *call.inputs,
            *_map(grad, s.axis),
            *(du, ddelta, dA, dB, dC, dD, dgate, scratch),
            *call.sizes,
            *(call.lines, groups, chunk, chunks),
            HALVINGS=call.halvings,
            **call.constants,
        )
    dB, dC, dD = (None if x is None else x.sum(0) for x in (dB, dC, dD))
    return s._replace(
        u=du,
        delta=ddelta,
        A=dA.sum(0).t().contiguous(),
        B=dB,
        C=dC,
        D=dD,
        gate=dgate,
        delta_bias=None,
        delta_weight=None,
    )


def conv_silu_forward(x: Tensor, weight: Tensor, bias: Tensor, axis: str, reverse: bool) -> Tensor:
    """The output ``[B, H, W, D]``."""
    call = _ConvCall(x, weight, bias, axis, reverse)
    s = torch.empty(x.shape, dtype=x.dtype, device=x.device)
    with torch.cuda.device_of(s):
        _conv_silu_fwd_kernel[(call.items * call.blocks,)](*call.inputs, s, *call.sizes, **call.constants)
    return s


def conv_silu_backward(
    grad: Tensor, x: Tensor, weight: Tensor, bias: Tensor, axis: str, reverse: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of x, weight and bias."""
    call = _ConvCall(x, weight, bias, axis, reverse)
    channels, taps = weight.shape
    groups = _groups(CONV_PROGRAMS, call.items, call.blocks, x.device)
    dx = torch.empty(x.shape, dtype=x.dtype, device=x.device)
    dparameters = torch.empty(groups, taps + 1, channels, dtype=torch.float32, device=x.device)
    with torch.cuda.device_of(dx):
        _conv_silu_bwd_kernel[(groups * call.blocks,)](
            *call.inputs,
            *_map(grad, axis),
            dx,
            dparameters,
            *call.sizes,
            call.items,
            groups,
            **call.constants,
        )
    dweight, dbias = dparameters.sum(0).split([taps, 1])
    # With one tap, contiguous() would give a view: operators may not return tensors that share memory.
    return dx, dweight.t().clone(memory_format=torch.contiguous_format), dbias.squeeze(0)


class _ScanCall:
    """What the launches of both scan kernels have in common."""

    def __init__(self, s: ScanInputs, is_backward: bool = False) -> None:
        if s.delta_weight is not None and s.delta_weight.shape[1] == 0:  # kernels take rank 0 for no matrix
            s = s._replace(delta=torch.zeros_like(s.u), delta_weight=None)
        channels = s.u.shape[-1]
        rank = 0 if s.delta_weight is None else s.delta_weight.shape[1]
        block_n = triton.next_power_of_2(max(1, s.states))
        if is_backward:
            # What a thread has to keep of 16 states just fits into its registers.
            block_d, warps = 32, min(8, max(1, block_n // 8 if block_n > 16 else 1))
        else:
            block_d = min(32 * min(2, max(1, 16 // block_n)), max(32, triton.next_power_of_2(channels)))
            warps = min(8, max(1, block_n // 16))
        self.tile = block_n * block_d
        self.halvings = (self.tile // (32 * warps)).bit_length() - 1
        self.lines, self.length, sizes = _lines(s.u, s.axis, s.reverse)
        self.blocks = triton.cdiv(channels, block_d)
        self.sizes = (self.blocks, *sizes)
        # Transposed, parameters have their channels side by side as maps have, and as tiles lie in registers.
        parameters = (x if x is None else x.t().contiguous() for x in (s.A, s.delta_weight))
        vectors = (x if x is None else x.contiguous() for x in (s.D, s.delta_bias))
        maps = (_map(x, s.axis) for x in (s.u, s.delta, s.B, s.C, s.gate))
        self.inputs = (*chain(*maps), *parameters, *vectors)
        self.constants = dict(
            N=s.states,
            R=rank,
            BLOCK_N=block_n,
            BLOCK_R=triton.next_power_of_2(max(1, rank)),
            BLOCK_D=block_d,
            SOFTPLUS=s.delta_softplus,
            GEOMETRIC=s.A.dim() == 1,
            # Where a warp has all states of a channel; of several, each would take the products of all.
            PRODUCTS=s.A.dim() == 1 and block_n <= 16,
            num_warps=warps,
            # Triton is about to stop fusing multiplications and additions by default.
            enable_fp_fusion=True,
        )


class _ConvCall:
    """What the launches of both convolution kernels have in common."""

    def __init__(self, x: Tensor, weight: Tensor, bias: Tensor, axis: str, reverse: bool) -> None:
        channels, taps = weight.shape
        lines, length, sizes = _lines(x, axis, reverse)
        segments = triton.cdiv(length, SEGMENT)
        self.items = lines * segments
        block_d = 64
        self.blocks = triton.cdiv(channels, block_d)
        self.sizes = (self.blocks, *sizes, segments)
        self.inputs = (*_map(x, axis), weight.contiguous(), bias.contiguous())
        self.constants = dict(
            K=taps,
            SEGMENT=SEGMENT,
            BLOCK_D=block_d,
            num_warps=1,
            enable_fp_fusion=True,
        )


def _lines(x: Tensor, axis: str, reverse: bool) -> tuple[int, int, tuple[int, ...]]:
    """Number and length of the lines of a map, and how kernels find their cells in a contiguous one."""
    batch, height, width, channels = x.shape
    across, length, line_cells, next_cells = (
        (height, width, width, 1) if axis == "row" else (width, height, 1, width)
    )
    first, step = (length - 1, -1) if reverse else (0, 1)
    return batch * across, length, (across, length, channels, line_cells, next_cells, first, step)


def _map(x: Tensor | None, axis: str) -> tuple[Tensor | int | None, ...]:
    """A map, and the strides from an image, a line and a cell to the next."""
    if x is None:
        return None, 0, 0, 0
    x = x if x.stride(-1) == 1 else x.contiguous()
    image, row, column, _ = x.stride()
    return (x, image, row, column) if axis == "row" else (x, image, column, row)


def _groups(programs: int, items: int, blocks: int, device: torch.device) -> int:
    """How many programs share the lines of a block of channels."""
    processors = (
        torch.cuda.get_device_properties(device).multi_processor_count if device.type == "cuda" else 1
    )
    return max(1, min(items, processors * programs // blocks))


@triton.jit
def _sigmoid(x):
    e = tl.exp2(tl.abs(x) * -LOG2E)
    return tl.where(x < 0, e, 1.0) / (1.0 + e)


@triton.jit
def _load_vector(x, d, channels):
    """A block of a parameter; zero if there is none."""
    if x is None:
        return 0.0
    else:
        return tl.load(x + d, mask=d < channels, other=0.0).to(tl.float32)


@triton.jit
def _load_pair(x, start, stride, d, channels, last):
    """The channels of two cells; ones if there is no map. ``last`` is 0 if the second is past the end."""
    if x is None:
        return 1.0, 1.0
    else:
        x += start + d
        x0 = tl.load(x, mask=d < channels, other=0.0)
        x1 = tl.load(x + stride, mask=d < channels * last, other=0.0)
        return x0.to(tl.float32), x1.to(tl.float32)


@triton.jit
def _store_pair(x, start, stride, d, channels, last, x0, x1):
    x += start + d
    tl.store(x, x0.to(x.dtype.element_ty), mask=d < channels)
    tl.store(x + stride, x1.to(x.dtype.element_ty), mask=d < channels * last)


@triton.jit
def _load_shared_pair(x, start, stride, i, size, last):
    """What all channels of each of two cells share; ones if there is no map."""
    if x is None:
        ones = tl.where(i < size, 1.0, 0.0)
        return ones, ones
    else:
        cell = tl.arange(0, 2)[None, :]
        x += start + cell * stride + i[:, None]
        return tl.split(tl.load(x, mask=(i < size)[:, None] & (cell <= last), other=0.0).to(tl.float32))


@triton.jit
def _load_delta_pair(delta, start, stride, weight, bias, d, channels, last, R: tl.constexpr):
    """The step sizes of two cells, before softplus."""
    if R == 0:
        delta0, delta1 = _load_pair(delta, start, stride, d, channels, last)
    else:
        low0, low1 = _load_shared_pair(delta, start, stride, tl.arange(0, weight.shape[0]), R, last)
        delta0, delta1 = tl.sum(weight * low0[:, None], 0), tl.sum(weight * low1[:, None], 0)
    return delta0 + bias, delta1 + bias


@triton.jit
def _decays(dt, rates, powers, PRODUCTS: tl.constexpr):
    """exp(dt * A) of a cell, or the powers of the first state's, as products of its squares.

    Powers are constants to the compiler where a thread has all states of a channel. Then each state takes one
    product: what several powers share is multiplied once.
    """
    decay = tl.exp2(dt[None, :] * rates)
    if PRODUCTS:
        square, decay = decay, tl.where(powers % 2 == 1, decay, 1.0)
        for bit in tl.static_range(1, 5):
            if 2**bit <= powers.shape[0]:
                square *= square
                decay = tl.where(powers // 2**bit % 2 == 1, decay * square, decay)
    return decay


@kernel
def _scan_fwd_kernel(
    u, u_image, u_line, u_cell,
    delta, delta_image, delta_line, delta_cell,
    B, B_image, B_line, B_cell,
    C, C_image, C_line, C_cell,
    gate, gate_image, gate_line, gate_cell,
    A, delta_weight, D, delta_bias, y,
    blocks, across, length, channels, line_cells, next_cells, first, step,
    N: tl.constexpr, R: tl.constexpr,
    BLOCK_N: tl.constexpr, BLOCK_R: tl.constexpr, BLOCK_D: tl.constexpr, SOFTPLUS: tl.constexpr,
    GEOMETRIC: tl.constexpr, PRODUCTS: tl.constexpr,
):  # fmt: skip
    program = tl.program_id(0)
    d, n = program % blocks * BLOCK_D + tl.arange(0, BLOCK_D), tl.arange(0, BLOCK_N)
    powers = state_powers(n, N)[:, None]
    rate, rates_size = tl.arange(0, 1 if PRODUCTS else BLOCK_N), 1 if PRODUCTS else N
    rates = load_rates(A, rate, rates_size, d, channels, GEOMETRIC)
    weight = load_tile(delta_weight, tl.arange(0, BLOCK_R), R, d, channels)
    skip, bias = _load_vector(D, d, channels), _load_vector(delta_bias, d, channels)

    line = program // blocks
    image, line = (line // across).to(tl.int64), (line % across).to(tl.int64)
    u_start = image * u_image + line * u_line
    delta_start = image * delta_image + line * delta_line
    B_start = image * B_image + line * B_line
    C_start = image * C_image + line * C_line
    gate_start = image * gate_image + line * gate_line
    y_start = image * across * length + line * line_cells

    h = tl.zeros([BLOCK_N, BLOCK_D], tl.float32)
    for t in range(0, length, 2):
        last = tl.minimum(length - 1 - t, 1)
        at = (first + step * t).to(tl.int64)
        u0, u1 = _load_pair(u, u_start + at * u_cell, step * u_cell, d, channels, last)
        gate0, gate1 = _load_pair(gate, gate_start + at * gate_cell, step * gate_cell, d, channels, last)
        dt0, dt1 = _load_delta_pair(
            delta, delta_start + at * delta_cell, step * delta_cell, weight, bias, d, channels, last, R
        )
        dt0, _ = step_size(dt0, SOFTPLUS)
        dt1, _ = step_size(dt1, SOFTPLUS)
        B0, B1 = _load_shared_pair(B, B_start + at * B_cell, step * B_cell, n, N, last)
        C0, C1 = _load_shared_pair(C, C_start + at * C_cell, step * C_cell, n, N, last)

        # Two cells of the recurrence; one past the end is computed, but neither stored nor read.
        h = _decays(dt0, rates, powers, PRODUCTS) * h + (dt0 * u0)[None, :] * B0[:, None]
        y0 = (tl.sum(h * C0[:, None], 0) + skip * u0) * gate0
        h = _decays(dt1, rates, powers, PRODUCTS) * h + (dt1 * u1)[None, :] * B1[:, None]
        y1 = (tl.sum(h * C1[:, None], 0) + skip * u1) * gate1
        y_at, y_cell = y_start + at * next_cells, step * next_cells.to(tl.int64)
        _store_pair(y, y_at * channels, y_cell * channels, d, channels, last, y0, y1)


@triton.jit
def _cell_gradients(h_grad, decay, h_before, dt, u, B, rates, powers, PRODUCTS: tl.constexpr):
    """From the gradient of a state: those of the state before, of A, of dt, and of u without the skip."""
    before_grad = h_grad * decay
    # In this order: a large decay times a state of 0, before the first cell, is 0.
    exponent_grad = h_grad * h_before * decay
    drive_grad = tl.sum(h_grad * B[:, None], 0)
    if PRODUCTS:
        exponent_grad = tl.sum(exponent_grad * powers, 0, keep_dims=True)
    dt_grad = tl.sum(exponent_grad * rates, 0) * LN2 + u * drive_grad
    return before_grad, dt[None, :] * exponent_grad, dt_grad, dt * drive_grad


@kernel
def _scan_bwd_kernel(
    u, u_image, u_line, u_cell,
    delta, delta_image, delta_line, delta_cell,
    B, B_image, B_line, B_cell,
    C, C_image, C_line, C_cell,
    gate, gate_image, gate_line, gate_cell,
    A, delta_weight, D, delta_bias,
    grad, grad_image, grad_line, grad_cell,
    du, ddelta, dA, dB, dC, dD, dgate, scratch,
    blocks, across, length, channels, line_cells, next_cells, first, step,
    lines, groups, chunk, chunks,
    N: tl.constexpr, R: tl.constexpr,
    BLOCK_N: tl.constexpr, BLOCK_R: tl.constexpr, BLOCK_D: tl.constexpr, SOFTPLUS: tl.constexpr,
    GEOMETRIC: tl.constexpr, PRODUCTS: tl.constexpr, HALVINGS: tl.constexpr,
):  # fmt: skip
    program = tl.program_id(0)
    block, group = program % blocks, program // blocks
    d, n = block * BLOCK_D + tl.arange(0, BLOCK_D), tl.arange(0, BLOCK_N)
    powers = state_powers(n, N)[:, None]
    rate, rates_size = tl.arange(0, 1 if PRODUCTS else BLOCK_N), 1 if PRODUCTS else N
    rates = load_rates(A, rate, rates_size, d, channels, GEOMETRIC)
    skip, bias = _load_vector(D, d, channels), _load_vector(delta_bias, d, channels)
    rates_grad = tl.zeros_like(rates)
    skip_grad = tl.zeros([BLOCK_D], tl.float32)

    tile: tl.constexpr = BLOCK_N * BLOCK_D
    checkpoints = scratch + program.to(tl.int64) * (chunks + chunk) * tile
    checkpoints += n[:, None] * BLOCK_D + tl.arange(0, BLOCK_D)[None, :]
    states = checkpoints + chunks * tile
    shared_start = block * lines.to(tl.int64) * length
    out_cell = step * next_cells.to(tl.int64)
    map_cell = out_cell * channels

    for line_of_all in range(group, lines, groups):
        image, line = (line_of_all // across).to(tl.int64), (line_of_all % across).to(tl.int64)
        u_start = image * u_image + line * u_line
        delta_start = image * delta_image + line * delta_line
        B_start = image * B_image + line * B_line
        C_start = image * C_image + line * C_line
        gate_start = image * gate_image + line * gate_line
        grad_start = image * grad_image + line * grad_line
        out_start = image * across * length + line * line_cells

        h = tl.zeros([BLOCK_N, BLOCK_D], tl.float32)
        h_grad = tl.zeros([BLOCK_N, BLOCK_D], tl.float32)
        # Forward through all chunks, leaving checkpoints; then from the last one backward, with the states of
        # each computed again.
        for visit in range(2 * chunks - 1):
            index = tl.minimum(visit, 2 * (chunks - 1) - visit)
            begin, end = index * chunk, tl.minimum((index + 1) * chunk, (length + 1) // 2)
            # What one thread stored, another may load.
            tl.debug_barrier()
            if visit < chunks:
                tl.store(checkpoints + index * tile, h)
            else:
                h = tl.load(checkpoints + index * tile)
            weight = load_tile(delta_weight, tl.arange(0, BLOCK_R), R, d, channels)
            for pair in range(begin, end):
                tl.store(states + (pair - begin) * tile, h)
                last = tl.minimum(length - 1 - 2 * pair, 1)
                at = (first + step * 2 * pair).to(tl.int64)
                map_at = (out_start + at * next_cells) * channels
                u0, u1 = _load_pair(u, u_start + at * u_cell, step * u_cell, d, channels, last)
                dt0, dt1 = _load_delta_pair(
                    delta,
                    delta_start + at * delta_cell,
                    step * delta_cell,
                    weight,
                    bias,
                    d,
                    channels,
                    last,
                    R,
                )
                # The step sizes stay here until their gradients replace them.
                _store_pair(ddelta, map_at, map_cell, d, channels, last, dt0, dt1)
                dt0, _ = step_size(dt0, SOFTPLUS)
                dt1, _ = step_size(dt1, SOFTPLUS)
                B0, B1 = _load_shared_pair(B, B_start + at * B_cell, step * B_cell, n, N, last)
                h = _decays(dt0, rates, powers, PRODUCTS) * h + (dt0 * u0)[None, :] * B0[:, None]
                h = _decays(dt1, rates, powers, PRODUCTS) * h + (dt1 * u1)[None, :] * B1[:, None]

            # Backward through the chunk. On the way to the last chunk there is nothing to do yet.
            tl.debug_barrier()
            count = tl.where(visit < chunks - 1, 0, end - begin)
            for later in range(count):
                pair = end - 1 - later
                last = tl.minimum(length - 1 - 2 * pair, 1)
                at = (first + step * 2 * pair).to(tl.int64)
                out_at = out_start + at * next_cells
                map_at = out_at * channels
                u0, u1 = _load_pair(u, u_start + at * u_cell, step * u_cell, d, channels, last)
                gate0, gate1 = _load_pair(
                    gate, gate_start + at * gate_cell, step * gate_cell, d, channels, last
                )
                y0_grad, y1_grad = _load_pair(
                    grad, grad_start + at * grad_cell, step * grad_cell, d, channels, last
                )
                dt0, dt1 = _load_pair(ddelta, map_at, map_cell, d, channels, last)
                dt0, slope0 = step_size(dt0, SOFTPLUS)
                dt1, slope1 = step_size(dt1, SOFTPLUS)
                dt1 = tl.where(last > 0, dt1, 0.0)  # past the end, a decay of infinity times 0 is no number
                B0, B1 = _load_shared_pair(B, B_start + at * B_cell, step * B_cell, n, N, last)
                C0, C1 = _load_shared_pair(C, C_start + at * C_cell, step * C_cell, n, N, last)

                # The states of both cells, from that before them.
                decay0 = _decays(dt0, rates, powers, PRODUCTS)
                decay1 = _decays(dt1, rates, powers, PRODUCTS)
                h_before = tl.load(states + (pair - begin) * tile)
                h0 = decay0 * h_before + (dt0 * u0)[None, :] * B0[:, None]
                h1 = decay1 * h0 + (dt1 * u1)[None, :] * B1[:, None]

                # What the states gave: first, so that they need not be kept in registers.
                shared_at = (shared_start + out_at) * N
                if gate is not None:
                    gate0_grad = (tl.sum(h0 * C0[:, None], 0) + skip * u0) * y0_grad
                    gate1_grad = (tl.sum(h1 * C1[:, None], 0) + skip * u1) * y1_grad
                    _store_pair(dgate, map_at, map_cell, d, channels, last, gate0_grad, gate1_grad)
                y0_grad, y1_grad = y0_grad * gate0, y1_grad * gate1
                # B and C are shared by the channels: each block sums over its own.
                if dC is not None:
                    C0_grad = sum_channels(h0 * y0_grad[None, :], HALVINGS)
                    C1_grad = sum_channels(h1 * y1_grad[None, :], HALVINGS)
                    _store_pair(dC, shared_at, out_cell * N, n, N, last, C0_grad, C1_grad)
                skip_grad += y0_grad * u0 + y1_grad * u1

                # The recurrence, from the later cell to the earlier one.
                h1_grad = h_grad + y1_grad[None, :] * C1[:, None]
                h_grad, rates1_grad, dt1_grad, u1_grad = _cell_gradients(
                    h1_grad, decay1, h0, dt1, u1, B1, rates, powers, PRODUCTS
                )
                rates_grad += rates1_grad
                B1_grad = sum_channels(h1_grad * (dt1 * u1)[None, :], HALVINGS)
                h0_grad = h_grad + y0_grad[None, :] * C0[:, None]
                h_grad, rates0_grad, dt0_grad, u0_grad = _cell_gradients(
                    h0_grad, decay0, h_before, dt0, u0, B0, rates, powers, PRODUCTS
                )
                rates_grad += rates0_grad
                B0_grad = sum_channels(h0_grad * (dt0 * u0)[None, :], HALVINGS)
                if dB is not None:
                    _store_pair(dB, shared_at, out_cell * N, n, N, last, B0_grad, B1_grad)
                dt0_grad, dt1_grad = dt0_grad * slope0, dt1_grad * slope1
                _store_pair(ddelta, map_at, map_cell, d, channels, last, dt0_grad, dt1_grad)
                u0_grad, u1_grad = u0_grad + skip * y0_grad, u1_grad + skip * y1_grad
                _store_pair(du, map_at, map_cell, d, channels, last, u0_grad, u1_grad)

    group = group.to(tl.int64)
    store_rate_gradients(dA, group, rate, rates_size, d, channels, rates_grad, GEOMETRIC)
    if dD is not None:
        tl.store(dD + group * channels + d, skip_grad, mask=d < channels)


@triton.jit
def _load_cells(x, stride, t, length, d, channels, COUNT: tl.constexpr):
    """The channels of cells from the t-th on, which ``x`` points at; zero outside of the line."""
    x += d
    cells = ()
    for i in tl.static_range(COUNT):
        inside = d < tl.where((t + i >= 0) & (t + i < length), channels, 0)
        cells += (tl.load(x + i * stride, mask=inside, other=0.0).to(tl.float32),)
    return cells


@triton.jit
def _load_taps(weight, d, channels, K: tl.constexpr):
    taps = ()
    for k in tl.static_range(K):
        taps += (tl.load(weight + d * K + k, mask=d < channels, other=0.0).to(tl.float32),)
    return taps


@triton.jit
def _conv(x, taps, bias, i: tl.constexpr, K: tl.constexpr):
    y = bias
    for k in tl.static_range(K):
        y += taps[k] * x[i + k]
    return y


@kernel
def _conv_silu_fwd_kernel(
    x, x_image, x_line, x_cell,
    weight, bias, s,
    blocks, across, length, channels, line_cells, next_cells, first, step, segments,
    K: tl.constexpr, SEGMENT: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    program = tl.program_id(0)
    d = program % blocks * BLOCK_D + tl.arange(0, BLOCK_D)
    taps, shift = _load_taps(weight, d, channels, K), _load_vector(bias, d, channels)

    item = program // blocks
    line, t = item // segments, item % segments * SEGMENT
    image, line = (line // across).to(tl.int64), (line % across).to(tl.int64)
    at = (first + step * t).to(tl.int64)
    x_start = image * x_image + line * x_line + at * x_cell
    s_start = (image * across * length + line * line_cells + at * next_cells) * channels
    x_cell, s_cell = step * x_cell.to(tl.int64), step * next_cells.to(tl.int64) * channels

    PAST: tl.constexpr = K - 1
    xs = _load_cells(x + x_start - PAST * x_cell, x_cell, t - PAST, length, d, channels, SEGMENT + PAST)
    for i in tl.static_range(SEGMENT):
        y = _conv(xs, taps, shift, i, K)
        inside = d < tl.where(t + i < length, channels, 0)
        tl.store(s + s_start + i * s_cell + d, (y * _sigmoid(y)).to(s.dtype.element_ty), mask=inside)


@kernel
def _conv_silu_bwd_kernel(
    x, x_image, x_line, x_cell,
    weight, bias,
    grad, grad_image, grad_line, grad_cell,
    dx, dparameters,
    blocks, across, length, channels, line_cells, next_cells, first, step, segments,
    items, groups,
    K: tl.constexpr, SEGMENT: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    program = tl.program_id(0)
    d = program % blocks * BLOCK_D + tl.arange(0, BLOCK_D)
    taps, shift = _load_taps(weight, d, channels, K), _load_vector(bias, d, channels)
    shift_grad = tl.zeros([BLOCK_D], tl.float32)
    taps_grad = (shift_grad,) * K

    PAST: tl.constexpr = K - 1
    group = program // blocks
    for item in range(group, items, groups):
        line, t = item // segments, item % segments * SEGMENT
        image, line = (line // across).to(tl.int64), (line % across).to(tl.int64)
        at = (first + step * t).to(tl.int64)
        x_start = image * x_image + line * x_line + (at - PAST * step) * x_cell
        grad_start = image * grad_image + line * grad_line + at * grad_cell
        dx_start = (image * across * length + line * line_cells + at * next_cells) * channels
        xs = _load_cells(
            x + x_start, step * x_cell.to(tl.int64), t - PAST, length, d, channels, SEGMENT + 2 * PAST
        )
        s_grads = _load_cells(
            grad + grad_start, step * grad_cell.to(tl.int64), t, length, d, channels, SEGMENT + PAST
        )
        # Of the convolution before SiLU, for the cells of the segment and those after it that its taps reach.
        y_grads = ()
        for i in tl.static_range(SEGMENT + PAST):
            y = _conv(xs, taps, shift, i, K)
            sigmoid = _sigmoid(y)
            y_grads += (s_grads[i] * sigmoid * (1.0 + y * (1.0 - sigmoid)),)
        for i in tl.static_range(SEGMENT):
            x_grad = taps[PAST] * y_grads[i]
            for k in tl.static_range(PAST):
                x_grad += taps[k] * y_grads[i + PAST - k]
            inside = d < tl.where(t + i < length, channels, 0)
            dx_at = dx + dx_start + i * step * next_cells.to(tl.int64) * channels + d
            tl.store(dx_at, x_grad.to(dx.dtype.element_ty), mask=inside)
            sums = ()
            for k in tl.static_range(K):
                sums += (taps_grad[k] + y_grads[i] * xs[i + k],)
            taps_grad = sums
            shift_grad += y_grads[i]

    dparameters += group.to(tl.int64) * (K + 1) * channels + d
    for k in tl.static_range(K):
        tl.store(dparameters + k * channels, taps_grad[k], mask=d < channels)
    tl.store(dparameters + K * channels, shift_grad, mask=d < channels)
