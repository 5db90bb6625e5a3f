"""What the mixers with one two-dimensional convolution before all their scans have in common.

Shapes: B batch, H grid height, W grid width, C embedding, D = expand * C inner channels, R rank of the
step size.
"""

import math
from collections.abc import Callable, Iterable
from functools import reduce
from typing import Literal, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from v2m.layers.common import autocast_disabled, cast_for, check_map, check_sizes
from v2m.layers.coupled_scan import CoupledScan
from v2m.layers.directions import Directions, choose
from v2m.layers.mixers.base import Mixer
from v2m.layers.scan_parameters import resolve_rank
from v2m.layers.two_passes import TwoPasses, ones_like


class ConvThenScans(Mixer):
    """Mix the tokens of a map by scans from its corners, after one depthwise 3x3 convolution for all of them.

    The order of the hierarchical V2M (arXiv:2410.10382, figure of the block, after VMamba)::

        y      = sum over the corners of scan(conv2d(in_proj(input))) / sqrt(corners)
        output = out_proj(layer_norm(y))                  with use_norm
               = out_proj(y)                              else; gated by silu(z), z of in_proj, with use_gate

    Args:
        dim: See ``Mixer``, as for all that is not described here.
        scan: Makes a scan for so many channels D and a rank R: a module from paths, a map and its gate, both
            ``[B, H, W, D]``, to the sum over the paths, ``[B, H, W, D]``.
    """

    def __init__(
        self,
        dim: int,
        d_state: int,
        expand: int,
        dt_rank: int | Literal["auto"],
        directions: Directions | str,
        use_gate: bool,
        use_norm: bool,
        use_axis_parameters: bool,
        scan: Callable[[int, int], TwoPasses | CoupledScan],
    ) -> None:
        super().__init__()
        owner = type(self).__name__
        check_sizes(owner, dim=dim, d_state=d_state, expand=expand)
        rank = resolve_rank(owner, dim, dt_rank)
        self.directions = choose(owner, "directions", directions, Directions)
        if self.directions is Directions.RELEASED:
            raise ValueError(f"{owner}: directions is 'released', which V2MMixer alone has")
        self.dim, self.use_gate, inner = dim, use_gate, expand * dim
        self.in_proj = nn.Linear(dim, (2 if use_gate else 1) * inner, bias=False)
        self.conv2d = nn.Conv2d(inner, inner, 3, padding=1, groups=inner)

        paths = self.directions.paths
        # Where both axes have parameters of their own, each has a scan module of its own.
        groups = [[path for path in paths if path.first.axis == axis] for axis in ("row", "col")]
        self.groups = [group for group in groups if group] if use_axis_parameters else [list(paths)]
        self.scans = nn.ModuleList(scan(inner, rank) for _ in self.groups)
        self.norm = nn.LayerNorm(inner) if use_norm else nn.Identity()
        self.out_proj = nn.Linear(inner, dim, bias=False)

    def reset_scan_parameters(self) -> None:
        """Initialise rates, skips, step sizes and, where scans are coupled, couplings."""
        for scan in cast(Iterable[TwoPasses | CoupledScan], self.scans):
            scan.reset_scan_parameters()

    def forward(self, x: Tensor) -> Tensor:
        """Mix a map ``[B, H, W, C]`` into a map of the same shape."""
        check_map(type(self).__name__, x, self.dim)
        x, *z = cast_for(self.conv2d, self.in_proj(x)).chunk(2 if self.use_gate else 1, dim=-1)
        with autocast_disabled(x.device):
            # Without a gate, z is empty, and the scans multiply by ones.
            gate = F.silu(z[0]) if z else ones_like(x)
            x = self.conv2d(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
            pairs = zip(self.scans, self.groups, strict=True)
            y = reduce(torch.add, (scan(paths, x, gate) for scan, paths in pairs))
            y = self.norm(y / math.sqrt(len(self.directions.paths)))
        return self.out_proj(y)

    def extra_repr(self) -> str:
        """Show the settings that the submodules do not."""
        return f"directions={self.directions.value!r}"
