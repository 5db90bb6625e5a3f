"""Operators on random shapes, strides and extreme numbers: every implementation against the oracle."""

import torch

from v2m.ops import directional_pass, selective_scan, selective_scan_2d
from v2m.ops.kernels import build

SPECIAL = (
    0.0, 1e-45, 1e-38, 1e-30, 1e-20, 1e-6, 1.0, 16.0, 40.0, 86.0, 87.0, 88.0, 89.5, 90.0, 95.0, 100.0, 103.0,
    104.0, 200.0, 1e4,
)  # fmt: skip
"""Numbers near which exponentials change their kind."""
LARGE = (1e10, 1e19, 1e30, 1e38)
"""Numbers of which a product of two may be too large, so that a case has one at most."""
CLOSE, MOVED = 1e-3, 1e-6
"""Relative differences: of results, and of arguments to see how much these matter."""
OFTEN = 100
LARGEST = torch.finfo(torch.float32).max


class WrongResultError(Exception):
    """An implementation differs from the oracle."""


def compare_operators(rng):
    """Compare the implementations for one draw, output and every gradient.

    Raises:
        WrongResultError: one differs by more than its arguments' last digits explain.
    """
    operator, arguments, options = draw_case(rng)
    results = Results(operator, arguments, options)
    for implementation in ("pytorch", "cpu") if build.is_available() else ("pytorch",):
        if wrong := results.differences(implementation):
            shapes = {name: tuple(value.shape) for name, value in arguments.items()}
            raise WrongResultError(f"{operator.__name__} {implementation} {options} {shapes}: {wrong}")


def draw_case(rng):
    """An operator, its tensors by name, and its other arguments."""
    operator, tensors, options = draw_arguments(rng)
    flat = rng.choice([*tensors.values()]).view(-1)
    if flat.numel() and rng.random() < 0.3:
        flat[rng.randrange(flat.numel())] = rng.choice(LARGE) * rng.choice((-1, 1))
    return operator, {name: laid_out(rng, value) for name, value in tensors.items()}, options


def draw_arguments(rng):
    """An operator, its tensors by name, and its other arguments."""
    map_ = rng.randint(0, 3), rng.randint(1, 5), rng.choice((1, 2, 3, 5, 33))
    channels, states = rng.choice((1, 2, 3, 5, 16, 17)), rng.choice((0, 1, 2, 4, 5, 17))
    rank, taps = rng.randint(0, 3), rng.randint(1, 4)

    def tokens(*size):
        return draw_tensor(rng, (*map_, *size))

    def weights(*size):
        return draw_tensor(rng, size)

    def rates():
        return -weights(channels, states).abs() if rng.random() < 0.9 else weights(channels, states)

    def gate():
        return {rng.choice(("gate", "z")): tokens(channels)}

    lines = dict(axis=rng.choice(("row", "col")), reverse=rng.random() < 0.5)
    softplus = dict(delta_softplus=rng.random() < 0.7)
    kind = rng.randrange(3)
    if kind == 0:
        given = dict(
            u=tokens(channels), delta=tokens(channels), A=rates(), B=tokens(states), C=tokens(states)
        )
        more = dict(D=weights(channels), delta_bias=weights(channels)) | gate()
        return selective_scan, given | some(rng, more), lines | softplus
    if kind == 1:
        given = dict(
            x=tokens(channels),
            **gate(),
            conv_weight=weights(channels, taps),
            conv_bias=weights(channels),
            proj_weight=weights(rank + states, channels),
            delta_weight=weights(channels, rank),
            delta_bias=weights(channels),
            A=rates(),
            D=weights(channels),
        )
        return directional_pass, given, lines | dict(selects=rng.choice("BC"))
    given = dict(u=tokens(channels), A_row=rates(), A_col=rates())
    given |= {name: tokens(channels) for name in ("delta_row", "delta_col")}
    given |= {name: tokens(states) for name in ("B_row", "B_col", "C_row", "C_col")}
    given |= {name: tokens(states).abs().clamp(max=1) for name in ("coupling_row", "coupling_col")}
    turns = dict(reverse_row=rng.random() < 0.5, reverse_col=rng.random() < 0.5)
    sweeps = dict(sweeps=rng.choice((None, None, 0, 1, 3, 40)))
    more = some(rng, dict(D=weights(channels)) | gate())
    return selective_scan_2d, given | more, softplus | turns | sweeps


def some(rng, arguments):
    """Some of the arguments, which may be left out."""
    return {name: value for name, value in arguments.items() if rng.random() < 0.7}


def draw_tensor(rng, shape):
    """Numbers of which none, one or all are special."""
    values = torch.randn(shape)
    flat, chance = values.view(-1), rng.random()
    if flat.numel() and 0.45 < chance < 0.8:
        flat[rng.randrange(flat.numel())] = rng.choice(SPECIAL) * rng.choice((-1, 1))
    elif chance >= 0.8:
        flat.copy_(torch.tensor([rng.choice(SPECIAL) * rng.choice((-1, 1)) for _ in flat]))
    return values


def laid_out(rng, values):
    """The same numbers in memory of any order, or one of a batch in place of all."""
    order = rng.sample(range(values.ndim), values.ndim)
    layout = rng.randrange(4)
    if layout == 0:
        return values.permute(order).contiguous().permute([order.index(i) for i in range(values.ndim)])
    if layout == 1:
        return torch.stack([values, torch.full_like(values, torch.nan)], -1)[..., 0]
    if layout == 2 and len(values):
        return values[:1].expand(values.shape)
    return values


class Results:
    """What the oracle makes of arguments, in both precisions and of arguments a little beside."""

    def __init__(self, operator, arguments, options):
        self.operator, self.arguments, self.options = operator, arguments, options
        exact = {name: value.double() for name, value in arguments.items()}
        self.single, self.double = self.run(arguments, "reference"), self.run(exact, "reference")
        beside = [
            self.run({n: v * (1 + MOVED * torch.randn_like(v)) for n, v in exact.items()}, "reference")
            for _ in range(3)
        ]
        self.shift = {
            name: torch.stack([(near[name] - value).abs() for near in beside]).amax(0).nan_to_num(torch.inf)
            for name, value in self.double.items()
        }

    def run(self, arguments, implementation):
        """Output and gradients, all of float64."""
        leaves = {name: value.detach().requires_grad_() for name, value in arguments.items()}
        output = self.operator(**leaves, **self.options, implementation=implementation)
        generator = torch.Generator().manual_seed(1)
        slope = torch.randint(-8, 9, output.shape, generator=generator).to(output.dtype) / 4
        found = torch.autograd.grad(output, list(leaves.values()), slope, allow_unused=True)
        gradients = {
            name: torch.zeros_like(leaf) if gradient is None else gradient
            for (name, leaf), gradient in zip(leaves.items(), found, strict=True)
        }
        return {name: value.detach().double() for name, value in (gradients | dict(output=output)).items()}

    def differences(self, implementation):
        """The results that differ, with a pair of numbers each."""
        found = self.run(self.arguments, implementation)
        wrong = {}
        for name, ours in found.items():
            single, double, shift = self.single[name], self.double[name], OFTEN * self.shift[name]
            size = torch.maximum(single.abs(), double.abs())
            is_sure = single.isfinite() & double.isfinite() & ((single - double).abs() <= CLOSE / 10 * size)
            is_sure &= double.abs() + shift < LARGEST / 4
            far = is_sure & ~((ours - single).abs() <= CLOSE * size + shift + 1e-44)
            lost = single.isfinite() & ~ours.isfinite() & (double.abs() + shift < LARGEST / 4)
            if (bad := far | lost).any():
                wrong[name] = [float(ours[bad][0]), float(single[bad][0])]
        return wrong
