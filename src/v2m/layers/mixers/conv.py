"""Rows then columns, after one two-dimensional convolution for all scans: the hierarchical family's mixer."""

from typing import Literal

from timm.layers import register_notrace_module

from v2m.layers.directions import Directions, choose
from v2m.layers.mixers.conv_then_scans import ConvThenScans
from v2m.layers.scan_parameters import Decay
from v2m.layers.two_passes import TwoPasses


@register_notrace_module  # what it does depends on shapes and hooks
class SharedConvMixer(ConvThenScans):
    """Mix the tokens of a map by the paper's two passes from its corners, which share one 3x3 convolution.

    The mixer of the hierarchical V2M (arXiv:2410.10382, figure of the block, after VMamba). The scans of
    ``ConvThenScans`` are those of ``TwoPasses`` without convolutions of their own.

    Args:
        dim: See ``Mixer``, as for all that is not described here.
        directions: As in ``V2MMixer``, but for ``"released"``.
        use_gate: Gate the results of both passes by ``silu(z)``; without, ``in_proj`` is half as large.

    Example:
        >>> import torch
        >>> SharedConvMixer(32)(torch.randn(2, 5, 7, 32)).shape
        torch.Size([2, 5, 7, 32])
    """

    undecayed = TwoPasses.undecayed

    def __init__(
        self,
        dim: int,
        d_state: int = 16,
        expand: int = 2,
        dt_rank: int | Literal["auto"] = "auto",
        directions: Directions | str = Directions.CORNERS,
        use_gate: bool = True,
        use_norm: bool = False,
        use_axis_parameters: bool = False,
        single_gate: bool = False,
        decay: Decay | str = Decay.FREE,
    ) -> None:
        if single_gate and not use_gate:
            raise ValueError(
                "SharedConvMixer: single_gate is True, expected False with use_gate=False, as hierarchical "
                "models have it: there is no gate"
            )

        chosen = choose("SharedConvMixer", "decay", decay, Decay)

        def scan(channels: int, rank: int) -> TwoPasses:
            return TwoPasses(channels, d_state, 0, rank, single_gate, chosen)

        super().__init__(
            dim, d_state, expand, dt_rank, directions, use_gate, use_norm, use_axis_parameters, scan
        )
