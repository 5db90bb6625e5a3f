"""The exact 2-D scan on a GPU, in Triton: a wavefront over the cells, float32 inside.

A program scans one image with a block of channels, some rows at a time, each a cell behind the row above it:
in every step it takes cells of an anti-diagonal, whose states depend on those of earlier steps only. Having
come to the end of its row, a lane goes on with the next that no lane has. States go through memory, where
other lanes find them one barrier later; the forward keeps two rows of them. The backward has the forward keep
all, for as many images and channels as memory is set aside for, and walks back over the same steps, putting
the gradients of the states in their places.

Sweeps are levels of states that one walk takes along: the other state that a level couples with is that of
the level before. The coupled states themselves are one level that couples with itself.
"""

# mypy: allow-untyped-defs, allow-incomplete-defs

from collections.abc import Iterator
from itertools import chain

import torch
import triton  # type: ignore[import-untyped]
import triton.language as tl  # type: ignore[import-untyped]
from torch import Tensor

from v2m.ops.kernels.triton_parts import (
    LN2,
    kernel,
    load_rates,
    step_size,
    store_rate_gradients,
    sum_channels,
)
from v2m.ops.scan_2d.arguments import Scan2dInputs

# Rows that a program takes at once, where a channel has up to 8 states.
ROWS = 8
# Memory for states; a launch scans as many images and blocks of channels as find room in it.
STATES_BYTES = 2**29


def scan_2d_forward(s: Scan2dInputs) -> Tensor:
    """The output ``[B, H, W, D]``."""
    call = _Call(s)
    y = torch.empty(s.u.shape, dtype=s.u.dtype, device=s.u.device)
    with torch.cuda.device_of(y):
        for states, first, items in call.slices(rows=2):
            call.scan(states, first, items, 2, y)
    return y


def scan_2d_backward(grad: Tensor, s: Scan2dInputs) -> Scan2dInputs:
    """The gradients of the tensors, given that of the output."""
    call = _Call(s, is_backward=True)
    batch, height, width, _ = s.u.shape

    def empty(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
        return torch.empty(shape, dtype=dtype, device=grad.device)

    du = empty(*s.u.shape, dtype=s.u.dtype)
    ddelta_row, ddelta_col = empty(*s.u.shape), empty(*s.u.shape)
    dA = empty(2, batch, *s.A_row.t().shape)
    # Of B, C and the couplings: sums over the channels of a block.
    dshared = empty(6, call.blocks, batch, height, width, s.states)
    maps = (grad, du, ddelta_row, ddelta_col, dshared.flatten(0, 2))
    with torch.cuda.device_of(grad):
        for states, first, items in call.slices(rows=height):
            call.scan(states, first, items, height)
            _scan_2d_bwd_kernel[(items,)](
                *call.inputs,
                *chain(*(_map(x, s) for x in maps)),
                dA,
                states,
                first,
                batch,
                *call.sizes,
                HALVINGS=call.halvings,
                **call.constants,
            )
    # Summed one by one, for PyTorch wants each gradient in memory of its own.
    of_rates = (x.sum(0).t().contiguous() for x in dA)
    of_states = (x.sum(0) for x in dshared)
    return s.with_tensors(du, ddelta_row, ddelta_col, *of_rates, *of_states)


class _Call:
    """What the launches of both kernels have in common."""

    def __init__(self, s: Scan2dInputs, is_backward: bool = False) -> None:
        self.s = s
        batch, height, width, channels = s.u.shape
        block_n, block_d = triton.next_power_of_2(max(1, s.states)), 32
        rows = min(max(1, ROWS * 8 // max(8, block_n)), triton.next_power_of_2(height))
        # With 8 states to a thread, all that a step needs is in registers.
        warps = min(8, rows * max(1, block_n // 8))
        if is_backward and s.sweeps is not None:
            # The sums over levels are as many again: with 4 states to a thread, they fit.
            rows = max(1, rows // 2)
        levels = s.levels
        self.halvings = min(5, (block_n * rows // warps).bit_length() - 1)
        self.blocks = triton.cdiv(channels, block_d)
        self.items = batch * self.blocks
        self.cell = levels * 2 * block_n * block_d
        # The last row of all ends last.
        last = height - 1
        steps = last // rows * max(width, rows) + last % rows + width
        self.sizes = (self.blocks, height, width, channels, steps)
        maps = (
            *(s.u, s.delta_row, s.delta_col, s.B_row, s.B_col),
            *(s.coupling_row, s.coupling_col, s.C_row, s.C_col),
        )
        # Transposed, parameters have their channels side by side as maps have, and as tiles lie in registers.
        self.inputs = (*chain(*(_map(x, s) for x in maps)), *(A.t().contiguous() for A in (s.A_row, s.A_col)))
        self.constants = dict(
            N=s.states,
            LEVELS=levels,
            COUPLED=s.sweeps is None,
            SOFTPLUS=s.delta_softplus,
            GEOMETRIC=s.A_row.dim() == 1,
            BLOCK_N=block_n,
            BLOCK_D=block_d,
            ROWS=rows,
            num_warps=warps,
            # Triton is about to stop fusing multiplications and additions by default.
            enable_fp_fusion=True,
        )

    def slices(self, rows: int) -> Iterator[tuple[Tensor, int, int]]:
        """Memory for so many rows of states, and the first and the number of the items that share it."""
        size = rows * self.s.u.shape[2] * self.cell
        items = min(self.items, max(1, STATES_BYTES // (4 * max(1, size))))
        states = torch.empty(items, size, dtype=torch.float32, device=self.s.u.device)
        for first in range(0, self.items, max(1, items)):
            yield states, first, min(items, self.items - first)

    def scan(self, states: Tensor, first: int, items: int, rows: int, y: Tensor | None = None) -> None:
        """Compute the states of some items, and the output if there is room for it."""
        _scan_2d_fwd_kernel[(items,)](
            *self.inputs, *_map(y, self.s), states, rows, first, *self.sizes, **self.constants
        )


def _map(x: Tensor | None, s: Scan2dInputs) -> tuple[Tensor | int | None, ...]:
    """A map from the corner where the scan starts, and the strides to the next image, row and column."""
    if x is None:
        return None, 0, 0, 0
    x = x if x.stride(-1) == 1 else x.contiguous()
    image, row, column, _ = x.stride()
    x = x[:, -1:] if s.reverse_col else x
    x = x[:, :, -1:] if s.reverse_row else x
    return x, image, -row if s.reverse_col else row, -column if s.reverse_row else column


@triton.jit
def _cells(t, height, width, ROWS: tl.constexpr):
    """Row and column of each lane's cell in a step, and whether there is one."""
    lane, period = tl.arange(0, ROWS), tl.maximum(width, ROWS)
    at = t - lane
    i, j = at // period * ROWS + lane, at % period
    return i.to(tl.int64), j.to(tl.int64), (at >= 0) & (i < height) & (j < width)


@triton.jit
def _load_map(x, at, d, channels, inside):
    """The channels of cells ``[1, cells, D]``; zero outside."""
    x += at[None, :, None] + d[None, None, :]
    return tl.load(x, mask=inside[None, :, None] & (d < channels)[None, None, :], other=0.0).to(tl.float32)


@triton.jit
def _store_map(x, at, d, channels, inside, value):
    x += at[None, :, None] + d[None, None, :]
    mask = inside[None, :, None] & (d < channels)[None, None, :]
    tl.store(x, value.to(x.dtype.element_ty), mask=mask)


@triton.jit
def _load_steps(delta, at, d, channels, inside, SOFTPLUS: tl.constexpr):
    """The step sizes of cells, zero outside, and their slopes."""
    dt, slope = step_size(_load_map(delta, at, d, channels, inside), SOFTPLUS)
    return tl.where(inside[None, :, None], dt, 0.0), slope


@triton.jit
def _load_shared(x, at, n, N, inside):
    """What all channels of each cell share ``[N, cells, 1]``; zero outside."""
    x += at[None, :] + n[:, None]
    return tl.load(x, mask=inside[None, :] & (n < N)[:, None], other=0.0).to(tl.float32)[:, :, None]


@triton.jit
def _store_sum(x, at, n, N, inside, tile, HALVINGS: tl.constexpr):
    """Store the sums of a tile over its channels."""
    x += at[None, :] + n[:, None]
    sums = sum_channels(tl.reshape(tile, [tile.shape[0] * tile.shape[1], tile.shape[2]]), HALVINGS)
    sums = tl.reshape(sums, [tile.shape[0], tile.shape[1]])
    tl.store(x, sums, mask=inside[None, :] & (n < N)[:, None])


@triton.jit
def _load_states(h, at, inside):
    """States of cells ``[N, cells, D]``; zero outside."""
    return tl.load(h + at[None, :, None], mask=inside[None, :, None], other=0.0)


@triton.jit
def _store_states(h, at, inside, value):
    tl.store(h + at[None, :, None], value, mask=inside[None, :, None])


@triton.jit
def _load_before(h_row, h_col, level, left, has_left, up, has_up, LEVEL: tl.constexpr, COUPLED: tl.constexpr):
    """What a level goes on from: of the cell to the left and of that above, the row and the column state."""
    other = level if COUPLED else level - 1
    has_other = tl.full([1], other, tl.int32) >= 0
    left_row = _load_states(h_row + level * LEVEL, left, has_left)
    left_col = _load_states(h_col + other * LEVEL, left, has_left & has_other)
    up_row = _load_states(h_row + other * LEVEL, up, has_up & has_other)
    up_col = _load_states(h_col + level * LEVEL, up, has_up)
    return left_row, left_col, up_row, up_col


@triton.jit
def _mix(own, other, share):
    return (1.0 - share) * own + share * other


@kernel
def _scan_2d_fwd_kernel(
    u, u_b, u_h, u_w,
    delta_row, delta_row_b, delta_row_h, delta_row_w,
    delta_col, delta_col_b, delta_col_h, delta_col_w,
    B_row, B_row_b, B_row_h, B_row_w,
    B_col, B_col_b, B_col_h, B_col_w,
    coupling_row, coupling_row_b, coupling_row_h, coupling_row_w,
    coupling_col, coupling_col_b, coupling_col_h, coupling_col_w,
    C_row, C_row_b, C_row_h, C_row_w,
    C_col, C_col_b, C_col_h, C_col_w,
    A_row, A_col,
    y, y_b, y_h, y_w,
    states, rows, first, blocks, height, width, channels, steps,
    N: tl.constexpr, LEVELS: tl.constexpr, COUPLED: tl.constexpr, SOFTPLUS: tl.constexpr,
    GEOMETRIC: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_D: tl.constexpr, ROWS: tl.constexpr,
):  # fmt: skip
    item = first + tl.program_id(0)
    b = (item // blocks).to(tl.int64)
    d, n = item % blocks * BLOCK_D + tl.arange(0, BLOCK_D), tl.arange(0, BLOCK_N)
    rates_row = load_rates(A_row, n, N, d, channels, GEOMETRIC)[:, None, :]
    rates_col = load_rates(A_col, n, N, d, channels, GEOMETRIC)[:, None, :]
    nothing = tl.zeros([BLOCK_N, ROWS, BLOCK_D], tl.float32)

    tile: tl.constexpr = BLOCK_N * BLOCK_D
    cell: tl.constexpr = LEVELS * 2 * tile
    h_row = states + tl.program_id(0).to(tl.int64) * rows * width * cell
    h_row += n[:, None, None] * BLOCK_D + tl.arange(0, BLOCK_D)[None, None, :]
    h_col = h_row + tile
    for t in range(steps):
        i, j, inside = _cells(t, height, width, ROWS)
        x = _load_map(u, b * u_b + i * u_h + j * u_w, d, channels, inside)
        at = b * delta_row_b + i * delta_row_h + j * delta_row_w
        dt_row, _ = _load_steps(delta_row, at, d, channels, inside, SOFTPLUS)
        at = b * delta_col_b + i * delta_col_h + j * delta_col_w
        dt_col, _ = _load_steps(delta_col, at, d, channels, inside, SOFTPLUS)
        at = b * B_row_b + i * B_row_h + j * B_row_w
        drive_row = dt_row * x * _load_shared(B_row, at, n, N, inside)
        at = b * B_col_b + i * B_col_h + j * B_col_w
        drive_col = dt_col * x * _load_shared(B_col, at, n, N, inside)
        at = b * coupling_row_b + i * coupling_row_h + j * coupling_row_w
        share_row = _load_shared(coupling_row, at, n, N, inside)
        at = b * coupling_col_b + i * coupling_col_h + j * coupling_col_w
        share_col = _load_shared(coupling_col, at, n, N, inside)
        decay_row, decay_col = tl.exp2(dt_row * rates_row), tl.exp2(dt_col * rates_col)

        # Of the rows that there is memory for, the next one takes the place of the oldest.
        here = (i % rows * width + j) * cell
        left, up = here - cell, ((i + rows - 1) % rows * width + j) * cell
        has_left, has_up = inside & (j > 0), inside & (i > 0)
        state_row, state_col = nothing, nothing
        for level in range(LEVELS):
            left_row, left_col, up_row, up_col = _load_before(
                h_row, h_col, level, left, has_left, up, has_up, 2 * tile, COUPLED
            )
            state_row = decay_row * _mix(left_row, left_col, share_row) + drive_row
            state_col = decay_col * _mix(up_col, up_row, share_col) + drive_col
            _store_states(h_row + level * 2 * tile, here, inside, state_row)
            _store_states(h_col + level * 2 * tile, here, inside, state_col)
        if y is not None:
            at = b * C_row_b + i * C_row_h + j * C_row_w
            out = state_row * _load_shared(C_row, at, n, N, inside)
            at = b * C_col_b + i * C_col_h + j * C_col_w
            out += state_col * _load_shared(C_col, at, n, N, inside)
            out = tl.sum(out, 0, keep_dims=True)
            _store_map(y, b * y_b + i * y_h + j * y_w, d, channels, inside, out)
        # What one thread stored, another loads.
        tl.debug_barrier()


@kernel
def _scan_2d_bwd_kernel(
    u, u_b, u_h, u_w,
    delta_row, delta_row_b, delta_row_h, delta_row_w,
    delta_col, delta_col_b, delta_col_h, delta_col_w,
    B_row, B_row_b, B_row_h, B_row_w,
    B_col, B_col_b, B_col_h, B_col_w,
    coupling_row, coupling_row_b, coupling_row_h, coupling_row_w,
    coupling_col, coupling_col_b, coupling_col_h, coupling_col_w,
    C_row, C_row_b, C_row_h, C_row_w,
    C_col, C_col_b, C_col_h, C_col_w,
    A_row, A_col,
    grad, grad_b, grad_h, grad_w,
    du, du_b, du_h, du_w,
    ddelta_row, ddelta_row_b, ddelta_row_h, ddelta_row_w,
    ddelta_col, ddelta_col_b, ddelta_col_h, ddelta_col_w,
    dshared, dshared_b, dshared_h, dshared_w,
    dA, states, first, batch, blocks, height, width, channels, steps,
    N: tl.constexpr, LEVELS: tl.constexpr, COUPLED: tl.constexpr, SOFTPLUS: tl.constexpr,
    GEOMETRIC: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_D: tl.constexpr, ROWS: tl.constexpr,
    HALVINGS: tl.constexpr,
):  # fmt: skip
    item = first + tl.program_id(0)
    b, block = (item // blocks).to(tl.int64), item % blocks
    d, n = block * BLOCK_D + tl.arange(0, BLOCK_D), tl.arange(0, BLOCK_N)
    rates_row = load_rates(A_row, n, N, d, channels, GEOMETRIC)[:, None, :]
    rates_col = load_rates(A_col, n, N, d, channels, GEOMETRIC)[:, None, :]
    nothing = tl.zeros([BLOCK_N, ROWS, BLOCK_D], tl.float32)
    rates_row_grad, rates_col_grad = nothing, nothing

    tile: tl.constexpr = BLOCK_N * BLOCK_D
    cell: tl.constexpr = LEVELS * 2 * tile
    h_row = states + tl.program_id(0).to(tl.int64) * height * width * cell
    h_row += n[:, None, None] * BLOCK_D + tl.arange(0, BLOCK_D)[None, None, :]
    h_col = h_row + tile
    # From the sums of one kind to those of the next.
    kind = blocks.to(tl.int64) * batch * dshared_b
    for earlier in range(steps):
        i, j, inside = _cells(steps - 1 - earlier, height, width, ROWS)
        x = _load_map(u, b * u_b + i * u_h + j * u_w, d, channels, inside)
        y_grad = _load_map(grad, b * grad_b + i * grad_h + j * grad_w, d, channels, inside)
        at = b * delta_row_b + i * delta_row_h + j * delta_row_w
        dt_row, slope_row = _load_steps(delta_row, at, d, channels, inside, SOFTPLUS)
        at = b * delta_col_b + i * delta_col_h + j * delta_col_w
        dt_col, slope_col = _load_steps(delta_col, at, d, channels, inside, SOFTPLUS)
        decay_row, decay_col = tl.exp2(dt_row * rates_row), tl.exp2(dt_col * rates_col)

        # What reaches the states: from the output, and by these shares from the right and from below.
        at = b * C_row_b + i * C_row_h + j * C_row_w
        seed_row = y_grad * _load_shared(C_row, at, n, N, inside)
        at = b * C_col_b + i * C_col_h + j * C_col_w
        seed_col = y_grad * _load_shared(C_col, at, n, N, inside)
        has_left, has_up = inside & (j > 0), inside & (i > 0)
        has_right, has_down = inside & (j + 1 < width), inside & (i + 1 < height)
        at = b * coupling_row_b + i * coupling_row_h + j * coupling_row_w
        share_row = _load_shared(coupling_row, at, n, N, inside)
        share_right = _load_shared(coupling_row, at + coupling_row_w, n, N, has_right)
        at = b * coupling_col_b + i * coupling_col_h + j * coupling_col_w
        share_col = _load_shared(coupling_col, at, n, N, inside)
        share_down = _load_shared(coupling_col, at + coupling_col_h, n, N, has_down)

        # C, from the states that the output read. They are overwritten below.
        here = (i * width + j) * cell
        left, up, right, down = here - cell, here - width * cell, here + cell, here + width * cell
        out = b * dshared_b + i * dshared_h + j * dshared_w + block.to(tl.int64) * batch * dshared_b
        last = (LEVELS - 1) * 2 * tile
        C_row_grad = y_grad * _load_states(h_row + last, here, inside)
        _store_sum(dshared + 2 * kind, out, n, N, inside, C_row_grad, HALVINGS)
        C_col_grad = y_grad * _load_states(h_col + last, here, inside)
        _store_sum(dshared + 3 * kind, out, n, N, inside, C_col_grad, HALVINGS)

        # Sums over the levels: gradients of the drives, of the exponents, and of the shares.
        drive_row_grad, drive_col_grad = nothing, nothing
        exponent_row_grad, exponent_col_grad = nothing, nothing
        share_row_grad, share_col_grad = nothing, nothing
        right_above, down_above = nothing, nothing
        for lower in range(LEVELS):
            level = LEVELS - 1 - lower
            right_grad = _load_states(h_row + level * 2 * tile, right, has_right)
            down_grad = _load_states(h_col + level * 2 * tile, down, has_down)
            if COUPLED:
                right_above, down_above = right_grad, down_grad
            state_row_grad = (1.0 - share_right) * right_grad + share_down * down_above
            state_col_grad = (1.0 - share_down) * down_grad + share_right * right_above
            if level == LEVELS - 1:
                state_row_grad += seed_row
                state_col_grad += seed_col
            right_above, down_above = right_grad, down_grad
            drive_row_grad += state_row_grad
            drive_col_grad += state_col_grad

            # Through the decay to what the level went on from; it takes the place of the states.
            before_row_grad, before_col_grad = state_row_grad * decay_row, state_col_grad * decay_col
            left_row, left_col, up_row, up_col = _load_before(
                h_row, h_col, level, left, has_left, up, has_up, 2 * tile, COUPLED
            )
            exponent_row_grad += state_row_grad * _mix(left_row, left_col, share_row) * decay_row
            exponent_col_grad += state_col_grad * _mix(up_col, up_row, share_col) * decay_col
            share_row_grad += before_row_grad * left_col - before_row_grad * left_row
            share_col_grad += before_col_grad * up_row - before_col_grad * up_col
            _store_states(h_row + level * 2 * tile, here, inside, before_row_grad)
            _store_states(h_col + level * 2 * tile, here, inside, before_col_grad)

        # B, the couplings and the rates.
        _store_sum(dshared, out, n, N, inside, drive_row_grad * (dt_row * x), HALVINGS)
        _store_sum(dshared + kind, out, n, N, inside, drive_col_grad * (dt_col * x), HALVINGS)
        _store_sum(dshared + 4 * kind, out, n, N, inside, share_row_grad, HALVINGS)
        _store_sum(dshared + 5 * kind, out, n, N, inside, share_col_grad, HALVINGS)
        rates_row_grad += dt_row * exponent_row_grad
        rates_col_grad += dt_col * exponent_col_grad

        # The step sizes and the input, of which the drives are products.
        at = b * B_row_b + i * B_row_h + j * B_row_w
        x_row_grad = tl.sum(drive_row_grad * _load_shared(B_row, at, n, N, inside), 0, keep_dims=True)
        at = b * B_col_b + i * B_col_h + j * B_col_w
        x_col_grad = tl.sum(drive_col_grad * _load_shared(B_col, at, n, N, inside), 0, keep_dims=True)
        dt_row_grad = tl.sum(exponent_row_grad * rates_row, 0, keep_dims=True) * LN2 + x * x_row_grad
        dt_col_grad = tl.sum(exponent_col_grad * rates_col, 0, keep_dims=True) * LN2 + x * x_col_grad
        x_grad = dt_row * x_row_grad + dt_col * x_col_grad
        _store_map(du, b * du_b + i * du_h + j * du_w, d, channels, inside, x_grad)
        at = b * ddelta_row_b + i * ddelta_row_h + j * ddelta_row_w
        _store_map(ddelta_row, at, d, channels, inside, dt_row_grad * slope_row)
        at = b * ddelta_col_b + i * ddelta_col_h + j * ddelta_col_w
        _store_map(ddelta_col, at, d, channels, inside, dt_col_grad * slope_col)
        tl.debug_barrier()

    rates_row_grad, rates_col_grad = tl.sum(rates_row_grad, 1), tl.sum(rates_col_grad, 1)
    store_rate_gradients(dA, b, n, N, d, channels, rates_row_grad, GEOMETRIC)
    store_rate_gradients(dA, batch + b, n, N, d, channels, rates_col_grad, GEOMETRIC)
