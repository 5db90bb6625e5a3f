"""The scans of V2M: a pass along every line, and another across over what the first produced.

Shapes: B batch, H grid height, W grid width, D channels, N state size, R rank of the step size.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import partial, reduce
from typing import ClassVar, Literal, TypeAlias, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from v2m.layers.common import is_plain
from v2m.layers.directions import Path, Scan
from v2m.layers.scan_parameters import Decay, decay_rates, reset_scan
from v2m.ops import Axis, directional_pass, selective_scan

Pass: TypeAlias = Callable[[Tensor, Tensor, Scan], Tensor]
"""From a map and its gate, both ``[B, H, W, D]``, to a map of that shape, along the lines of a scan."""


class TwoPasses(nn.Module):
    """The two passes of V2M with their parameters, summed over some paths.

    V2M (arXiv:2410.10382, section 3.2)::

        pass 1  s = silu(conv1d(x));     delta, B = x_proj(s);    u = scan(s, delta, A, B, C=1)   * gate
        pass 2  s = silu(conv1d_2(u));   delta, C = x_proj_2(s);  v = scan(s, delta, A_2, B=1, C) * gate

    where the scans add a skip and ``delta`` goes through ``dt_proj`` and softplus. Parameter names and shapes
    are those of the released code.

    Each pass is one operator that reads the weights of its layers. Where one of them is hooked, wrapped or
    replaced (adapters, pruning, quantisation, offloading, sharding), the layers are called instead.

    Args:
        channels: Channels D of the map.
        d_state: State size N of each channel.
        d_conv: Length of the causal depthwise convolutions; 0 for none, so that ``s = silu(x)``.
        dt_rank: Rank R of the step size projection.
        single_gate: Gate the sum over the paths once, not every pass.
        decay: What is learned of the decay rates.
    """

    undecayed: ClassVar[tuple[str, ...]] = ("A_log", "D", "A_2_log", "D_2")
    """See ``Mixer``."""

    def __init__(
        self,
        channels: int,
        d_state: int,
        d_conv: int,
        dt_rank: int,
        single_gate: bool = False,
        decay: Decay = Decay.FREE,
    ) -> None:
        super().__init__()
        self.d_state, self.d_conv, self.dt_rank = d_state, d_conv, dt_rank
        self.single_gate, self.decay = single_gate, decay
        if d_conv:
            self.conv1d = nn.Conv1d(channels, channels, d_conv, groups=channels)
            self.conv1d_2 = nn.Conv1d(channels, channels, d_conv, groups=channels)
        self.x_proj = nn.Linear(channels, dt_rank + d_state, bias=False)
        self.dt_proj = nn.Linear(dt_rank, channels)
        self.A_log = decay.empty_rates(channels, d_state)
        self.D = nn.Parameter(torch.empty(channels))
        self.x_proj_2 = nn.Linear(channels, dt_rank + d_state, bias=False)
        self.dt_proj_2 = nn.Linear(dt_rank, channels)
        self.A_2_log = decay.empty_rates(channels, d_state)
        self.D_2 = nn.Parameter(torch.empty(channels))
        self.reset_scan_parameters()

    def reset_scan_parameters(self) -> None:
        """Initialise rates, skips and step sizes: A = -1..-N, D = 1, steps from 0.001 to 0.1 cells."""
        reset_scan(self.A_log, self.D, self.dt_proj)
        reset_scan(self.A_2_log, self.D_2, self.dt_proj_2)

    def forward(self, paths: Sequence[Path], x: Tensor, gate: Tensor, window: int | None = None) -> Tensor:
        """Sum the results over the paths.

        Args:
            paths: The orders in which to walk the grid.
            x: Input ``[B, H, W, D]``.
            gate: Factor of the output of both passes, or of the sum, ``[B, H, W, D]``.
            window: Height and width of the windows in which every path starts anew; None for the whole grid.
                Windows at the right and bottom are cut where the grid ends.

        Returns:
            ``[B, H, W, D]``.
        """
        # Every result is a tensor of its own, so the first can hold the sum.
        results = self._results(paths, x, ones_like(x) if self.single_gate else gate, window)
        total = reduce(Tensor.add_, results)
        return total * gate if self.single_gate else total

    def extra_repr(self) -> str:
        """Show the settings that the submodules do not."""
        return f"d_state={self.d_state}, decay={self.decay.value!r}"

    def _results(
        self, paths: Sequence[Path], x: Tensor, gate: Tensor, window: int | None
    ) -> Iterator[Tensor]:
        conv1d, conv1d_2 = (self.conv1d, self.conv1d_2) if self.d_conv else (None, None)
        first = self._pass(conv1d, self.x_proj, self.dt_proj, self.A_log, self.D, "B")
        second = self._pass(conv1d_2, self.x_proj_2, self.dt_proj_2, self.A_2_log, self.D_2, "C")
        if window is not None:
            first, second = (partial(_within_windows, run, window) for run in (first, second))
        # Paths that begin alike share their first pass: with rows always first, two serve four corners.
        first_passes: dict[Scan, Tensor] = {}
        for path in paths:
            if path.first not in first_passes:
                first_passes[path.first] = first(x, gate, path.first)
            yield path.place(second(first_passes[path.first], gate, path.second))

    def _pass(
        self,
        conv: nn.Conv1d | None,
        x_proj: nn.Linear,
        dt_proj: nn.Linear,
        A_log: Tensor,
        D: Tensor,
        selects: Literal["B", "C"],
    ) -> Pass:
        """One of the two passes, prepared for all paths."""
        A = decay_rates(A_log)
        # One operator for the whole pass is faster, but reads weights and calls no layer.
        biased = [dt_proj] if conv is None else [dt_proj, conv]
        fits = is_plain(x_proj, *biased) and x_proj.bias is None and all(m.bias is not None for m in biased)
        if not fits:  # something wraps or replaces a layer, and has to get its turn
            sizes = [self.dt_rank, self.d_state]
            return partial(_called_pass, conv, self.d_conv, x_proj, sizes, dt_proj, A, D, selects)
        if conv is None:  # a convolution of one tap that changes nothing
            weight, bias = torch.ones_like(D).unsqueeze(1), torch.zeros_like(D)
        else:
            weight, bias = conv.weight.squeeze(1), cast(Tensor, conv.bias)
        return partial(
            _fused_pass, (weight, bias, x_proj.weight, dt_proj.weight, dt_proj.bias, A, D), selects
        )


def _fused_pass(
    parameters: tuple[Tensor, ...], selects: Literal["B", "C"], x: Tensor, gate: Tensor, scan: Scan
) -> Tensor:
    return directional_pass(x, *parameters, gate=gate, selects=selects, axis=scan.axis, reverse=scan.reverse)


def _called_pass(
    conv: nn.Module | None,
    taps: int,
    x_proj: nn.Module,
    sizes: list[int],
    dt_proj: nn.Module,
    A: Tensor,
    D: Tensor,
    selects: Literal["B", "C"],
    x: Tensor,
    gate: Tensor,
    scan: Scan,
) -> Tensor:
    s = F.silu(x if conv is None else causal_conv(conv, taps, x, scan))
    low, selected = x_proj(s).split(sizes, dim=-1)
    B, C = (selected, None) if selects == "B" else (None, selected)
    y = selective_scan(s, dt_proj(low), A, B, C, D, delta_softplus=True, axis=scan.axis, reverse=scan.reverse)
    return y * gate


def causal_conv(conv: nn.Module, taps: int, x: Tensor, scan: Scan) -> Tensor:
    """Call a convolution of ``[lines, D, L + taps - 1]`` on the lines of a map ``[B, H, W, D]``."""
    lines = x if scan.axis == "row" else x.transpose(1, 2)
    lines = lines.flip(2) if scan.reverse else lines
    padded = F.pad(lines.flatten(0, 1).mT, (taps - 1, 0))  # at the start alone: causal
    y = conv(padded).mT.reshape(lines.shape)
    y = y.flip(2) if scan.reverse else y
    return y if scan.axis == "row" else y.transpose(1, 2)


def _within_windows(run: Pass, window: int, x: Tensor, gate: Tensor, scan: Scan) -> Tensor:
    """Cut every line into pieces as long as a window, the last shorter, and run a pass on each by itself."""
    dim = 2 if scan.axis == "row" else 1
    whole = x.shape[dim] // window * window
    results = []
    # Pieces of one length are one call. The shorter ones at the end get their own, so nothing is padded.
    for start, end in ((0, whole), (whole, x.shape[dim])):
        if start == end:
            continue
        length = min(window, end - start)
        lines, gates = (_cut(m.narrow(dim, start, end - start), length, scan.axis) for m in (x, gate))
        y = run(lines, gates, scan)
        shape = list(x.shape)
        shape[dim] = end - start
        results.append(y.view(shape))
    return results[0] if len(results) == 1 else torch.cat(results, dim)


def _cut(x: Tensor, length: int, axis: Axis) -> Tensor:
    """Make every piece of a line a line of its own: pieces of rows are more rows, of columns more images."""
    batch, height, width, channels = x.shape
    if axis == "row":
        return x.reshape(batch, height * (width // length), length, channels)
    return x.reshape(batch * (height // length), length, width, channels)


def ones_like(x: Tensor) -> Tensor:
    """Ones ``[B, H, W, D]`` that take the memory of one cell."""
    return x.new_ones(x.shape[-1]).expand(x.shape)
