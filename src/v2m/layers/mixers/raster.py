"""The one-dimensional baseline: Vim's bidirectional mixer over a map in raster order.

Shapes: B batch, H grid height, W grid width, L = H * W cells, C embedding, D = expand * C inner channels,
N state size, R rank of the step size.
"""

from typing import Literal

import torch
import torch.nn.functional as F
from timm.layers import register_notrace_module
from torch import Tensor, nn

from v2m.layers.common import autocast_disabled, check_map, check_sizes, is_plain
from v2m.layers.directions import LEFT, RIGHT, Scan, choose
from v2m.layers.mixers.base import Mixer
from v2m.layers.scan_parameters import Decay, decay_rates, reset_scan, resolve_rank
from v2m.layers.two_passes import causal_conv
from v2m.ops import selective_scan


@register_notrace_module  # what it does depends on shapes and hooks
class RasterMixer(Mixer):
    """Mix the tokens of a map as one line of cells, row after row, by a selective scan in each sense.

    Vision Mamba (arXiv:2401.09417, algorithm 1), with ``x, z = in_proj(input)`` and for either sense::

        s = silu(conv1d(x));    delta, B, C = x_proj(s);    y = scan(s, delta, A, B, C) + D * s

    where ``delta`` goes through ``dt_proj`` and softplus, and the causal convolution and the scan of the
    backward sense start at the last cell. The output is ``out_proj((y + y_b) / 2 * silu(z))``, halved as in
    the released models. Parameter names and shapes are those of the released code; its backward ones end in
    ``_b``.

    Under autocast, ``in_proj`` and ``out_proj`` run in the low precision and everything between them in the
    dtype of the parameters; the state and the decay are float32 at least in any case.

    Args:
        dim: See ``Mixer``, as for the other settings.

    Example:
        >>> RasterMixer(32)(torch.randn(2, 5, 7, 32)).shape
        torch.Size([2, 5, 7, 32])
    """

    undecayed = ("A_log", "D", "A_b_log", "D_b")

    def __init__(
        self,
        dim: int,
        d_state: int = 16,
        d_conv: int = 4,
        expand: int = 2,
        dt_rank: int | Literal["auto"] = "auto",
        decay: Decay | str = Decay.FREE,
    ) -> None:
        super().__init__()
        check_sizes("RasterMixer", dim=dim, d_state=d_state, d_conv=d_conv, expand=expand)
        rank, inner = resolve_rank("RasterMixer", dim, dt_rank), expand * dim
        self.dim, self.d_state, self.d_conv, self.dt_rank = dim, d_state, d_conv, rank
        self.decay = choose("RasterMixer", "decay", decay, Decay)

        self.in_proj = nn.Linear(dim, 2 * inner, bias=False)
        self.conv1d = nn.Conv1d(inner, inner, d_conv, groups=inner)
        self.x_proj = nn.Linear(inner, rank + 2 * d_state, bias=False)
        self.dt_proj = nn.Linear(rank, inner)
        self.A_log = self.decay.empty_rates(inner, d_state)
        self.D = nn.Parameter(torch.empty(inner))
        self.conv1d_b = nn.Conv1d(inner, inner, d_conv, groups=inner)
        self.x_proj_b = nn.Linear(inner, rank + 2 * d_state, bias=False)
        self.dt_proj_b = nn.Linear(rank, inner)
        self.A_b_log = self.decay.empty_rates(inner, d_state)
        self.D_b = nn.Parameter(torch.empty(inner))
        self.out_proj = nn.Linear(inner, dim, bias=False)
        self.reset_scan_parameters()

    def reset_scan_parameters(self) -> None:
        """Initialise rates, skips and step sizes: A = -1..-N, D = 1, steps from 0.001 to 0.1 cells."""
        reset_scan(self.A_log, self.D, self.dt_proj)
        reset_scan(self.A_b_log, self.D_b, self.dt_proj_b)

    def forward(self, x: Tensor) -> Tensor:
        """Mix a map ``[B, H, W, C]`` into a map of the same shape."""
        check_map("RasterMixer", x, self.dim)
        # As a map of height 1, the line of all cells is a row to the operators.
        line = self.in_proj(x.flatten(1, 2).unsqueeze(1)).to(self.A_log.dtype)
        u, z = line.chunk(2, dim=-1)
        with autocast_disabled(x.device):
            forward = self._scan(u, self.conv1d, self.x_proj, self.dt_proj, self.A_log, self.D, RIGHT)
            backward = self._scan(
                u, self.conv1d_b, self.x_proj_b, self.dt_proj_b, self.A_b_log, self.D_b, LEFT
            )
            y = (forward + backward) / 2 * F.silu(z)
        return self.out_proj(y).view(x.shape)

    def extra_repr(self) -> str:
        """Show the settings that the submodules do not."""
        return f"d_state={self.d_state}, dt_rank={self.dt_rank}, decay={self.decay.value!r}"

    def _scan(
        self,
        u: Tensor,
        conv: nn.Conv1d,
        x_proj: nn.Linear,
        dt_proj: nn.Linear,
        A_log: Tensor,
        D: Tensor,
        scan: Scan,
    ) -> Tensor:
        """Convolve and scan a line ``[B, 1, L, D]`` in one sense."""
        plain = is_plain(conv, dt_proj)
        s = _fast_causal_conv(u, conv, scan.reverse) if plain else causal_conv(conv, self.d_conv, u, scan)
        s = F.silu(s)
        low, B, C = x_proj(s).split([self.dt_rank, self.d_state, self.d_state], dim=-1)
        # The scan adds the bias in float32, which matters to models in bfloat16.
        delta, bias = (F.linear(low, dt_proj.weight), dt_proj.bias) if plain else (dt_proj(low), None)
        return selective_scan(
            s,
            delta,
            decay_rates(A_log),
            B,
            C,
            D,
            delta_bias=bias,
            delta_softplus=True,
            reverse=scan.reverse,
        )


def _fast_causal_conv(u: Tensor, conv: nn.Conv1d, reverse: bool) -> Tensor:
    """Convolve a line ``[B, 1, L, D]`` channel by channel with the cells before, or after if ``reverse``.

    On a map of height 1 in PyTorch's channel-last layout, nothing is transposed.
    """
    weight, past = conv.weight.unsqueeze(2), conv.weight.shape[-1] - 1
    if reverse:
        weight, padding = weight.flip(-1), (0, past)
    else:
        padding = (past, 0)
    padded = F.pad(u, (0, 0, *padding)).permute(0, 3, 1, 2)
    return F.conv2d(padded, weight, conv.bias, groups=conv.groups).permute(0, 2, 3, 1)
