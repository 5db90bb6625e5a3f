"""The paper's token mixer: rows then columns, from four corners.

Shapes: B batch, H grid height, W grid width, C embedding, D = expand * C inner channels, N state size,
R rank of the step size.
"""

import math
from typing import Any, Literal

import torch.nn.functional as F
from timm.layers import register_notrace_module
from torch import Tensor, nn

from v2m.layers.common import autocast_disabled, check_map, check_sizes, is_size
from v2m.layers.directions import Directions, choose
from v2m.layers.mixers.base import Mixer
from v2m.layers.scan_parameters import Decay, resolve_rank
from v2m.layers.two_passes import TwoPasses


@register_notrace_module  # what it does depends on shapes and hooks
class V2MMixer(TwoPasses, Mixer):
    """Mix the tokens of a map by selective scans in two dimensions from four corners.

    V2M (arXiv:2410.10382, section 3.2), with ``x, z = in_proj(input)``: the two passes of ``TwoPasses``,
    gated by ``silu(z)``, along each of four paths. The output is ``out_proj(sum / sqrt(number of paths))``,
    of the sum over the paths. Parameter names and shapes are those of the released code. That is why the
    mixer inherits from ``TwoPasses`` and does not hold one.

    With a ``window``, every other path is walked within windows of the grid, after LocalVim
    (arXiv:2403.09338), by passes that have parameters of their own (``local``).

    Under autocast, ``in_proj`` and ``out_proj`` run in the low precision and everything between them in the
    dtype of the parameters; the state and the decay are float32 at least in any case.

    Args:
        dim: See ``Mixer``, as for all that is not described here.
        directions: ``"corners"`` (the paper), ``"corners_rows_first"`` (cheaper, another function),
            ``"opposite_corners"`` (two), ``"one_corner"``, or ``"released"`` (the released code's numbers;
            square grids only).
        window: Height and width of the windows, in cells; None for none.
        is_first_local: Walk the first and third path within windows, not the second and fourth.

    Example:
        >>> import torch
        >>> V2MMixer(32)(torch.randn(2, 5, 7, 32)).shape
        torch.Size([2, 5, 7, 32])
    """

    def __init__(
        self,
        dim: int,
        d_state: int = 16,
        d_conv: int = 4,
        expand: int = 2,
        dt_rank: int | Literal["auto"] = "auto",
        directions: Directions | str = Directions.CORNERS,
        window: int | None = None,
        is_first_local: bool = False,
        single_gate: bool = False,
        decay: Decay | str = Decay.FREE,
    ) -> None:
        check_sizes("V2MMixer", dim=dim, d_state=d_state, d_conv=d_conv, expand=expand)
        rank, inner = resolve_rank("V2MMixer", dim, dt_rank), expand * dim
        decay = choose("V2MMixer", "decay", decay, Decay)
        super().__init__(inner, d_state, d_conv, rank, single_gate, decay)
        self.directions = choose("V2MMixer", "directions", directions, Directions)
        self.dim, self.window, self.is_first_local = dim, window, is_first_local
        if window is not None:
            if not is_size(window):
                raise ValueError(f"V2MMixer: window is {window!r}, expected a positive integer or None")
            # One path leaves none to walk within windows; the released code's turns fit whole maps alone.
            if len(self.directions.paths) < 2 or self.directions is Directions.RELEASED:
                raise ValueError(
                    f"V2MMixer: window is {window}, expected None with directions={self.directions.value!r}; "
                    "'corners', 'corners_rows_first' and 'opposite_corners' go with windows"
                )
            self.local = TwoPasses(inner, d_state, d_conv, rank, single_gate, decay)
        self.in_proj = nn.Linear(dim, 2 * inner, bias=False)
        self.out_proj = nn.Linear(inner, dim, bias=False)

    @classmethod
    def settings_at(cls, index: int) -> dict[str, Any]:
        """Blocks take turns, so that every path is walked within windows in every other block."""
        return dict(is_first_local=index % 2 == 1)

    def reset_scan_parameters(self) -> None:
        """Initialise rates, skips and step sizes of all passes, those within windows included."""
        super().reset_scan_parameters()
        # A child exists only with a window, and not yet when the base class's constructor calls this.
        for child in self.children():
            if isinstance(child, TwoPasses):
                child.reset_scan_parameters()

    def forward(self, x: Tensor) -> Tensor:  # type: ignore[override]
        """Mix a map ``[B, H, W, C]`` into a map of the same shape."""
        check_map("V2MMixer", x, self.dim)
        paths = self.directions.paths
        if self.directions is Directions.RELEASED and x.shape[1] != x.shape[2]:
            raise ValueError(
                f"V2MMixer: input has a {x.shape[1]}x{x.shape[2]} grid, expected a square one with "
                "directions='released'; the other directions take any grid"
            )
        x, z = self.in_proj(x).to(self.A_log.dtype).chunk(2, dim=-1)
        # Rounding errors of a low precision would add up along the scans, so these keep the parameters' own.
        with autocast_disabled(x.device):
            gate = F.silu(z)
            if self.window is None:
                y = super().forward(paths, x, gate)
            else:
                # Blocks take turns: a path walked within windows here is walked over the whole map next.
                whole, local = paths[0::2], paths[1::2]
                if self.is_first_local:
                    whole, local = local, whole
                y = super().forward(whole, x, gate)
                y = y + self.local(local, x, gate, self.window)
        # A sum of n uncorrelated paths, divided by sqrt(n), has the variance of one.
        return self.out_proj(y / math.sqrt(len(paths)))

    def extra_repr(self) -> str:
        """Show the settings that the submodules do not."""
        shown = dict(d_state=self.d_state, dt_rank=self.dt_rank, directions=self.directions.value)
        if self.window is not None:
            shown["window"] = self.window
        if self.single_gate:
            shown["single_gate"] = True
        if self.decay is not Decay.FREE:
            shown["decay"] = self.decay.value
        return ", ".join(f"{name}={value!r}" for name, value in shown.items())
