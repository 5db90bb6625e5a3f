"""The exact two-dimensional recurrence, which the paper simplifies, and its approximation by sweeps."""

from typing import Literal

from timm.layers import register_notrace_module

from v2m.layers.coupled_scan import CoupledScan
from v2m.layers.directions import Directions, choose
from v2m.layers.mixers.conv_then_scans import ConvThenScans
from v2m.layers.scan_parameters import Decay


@register_notrace_module  # what it does depends on shapes
class ExactMixer(ConvThenScans):
    """Mix the tokens of a map by the exact recurrence from its corners, after one 3x3 convolution.

    Roesser's model: a row state and a column state, each going on from both, see ``CoupledScan``. It has no
    first axis along which to convolve, hence the convolution of ``ConvThenScans``.

    Args:
        dim: See ``Mixer``, as for all that is not described here.
        directions: As in ``V2MMixer``, but for ``"released"``.
        sweeps: None for the exact recurrence; else the Jacobi sweeps towards it, from 0: rows and columns
            scanned on their own, then again with each other's last states, so many times.
        use_gate: Gate the sum over the paths by ``silu(z)``; without, ``in_proj`` is half as large.

    Example:
        >>> import torch
        >>> ExactMixer(32)(torch.randn(2, 5, 7, 32)).shape
        torch.Size([2, 5, 7, 32])
    """

    undecayed = CoupledScan.undecayed

    def __init__(
        self,
        dim: int,
        d_state: int = 16,
        expand: int = 2,
        dt_rank: int | Literal["auto"] = "auto",
        directions: Directions | str = Directions.CORNERS,
        sweeps: int | None = None,
        use_gate: bool = True,
        use_norm: bool = False,
        use_axis_parameters: bool = False,
        decay: Decay | str = Decay.FREE,
    ) -> None:
        chosen = choose("ExactMixer", "decay", decay, Decay)

        def scan(channels: int, rank: int) -> CoupledScan:
            return CoupledScan(channels, d_state, rank, sweeps, chosen)

        super().__init__(
            dim, d_state, expand, dt_rank, directions, use_gate, use_norm, use_axis_parameters, scan
        )
