"""What every token mixer is: a layer from a map to a map, with settings and a last projection."""

import inspect
from abc import ABC, abstractmethod
from typing import Any, ClassVar

from torch import Tensor, nn


class Mixer(nn.Module, ABC):
    """Mix the tokens of a map ``[B, H, W, C]`` of any height and width into a map of the same shape.

    A mixer's settings are what its constructor takes besides ``dim``. A setting means the same in every mixer
    that has it:

    - ``dim``: Channels C of input and output.
    - ``d_state``: State size N of each channel.
    - ``d_conv``: Length of the causal depthwise convolutions.
    - ``expand``: Inner channels D as a multiple of ``dim``.
    - ``dt_rank``: Rank R of the step size projection, or ``"auto"`` for ``ceil(dim / 16)``.
    - ``decay``: What is learned of the decay rates of a channel: ``"free"``, all N of them, or
      ``"geometric"``, one number for all; see ``v2m.layers.Decay``. Both start as the same function.
    - ``directions``: Which paths over the grid are summed, see ``v2m.layers.Directions``.
    - ``single_gate``: Gate the sum over the paths once, not every pass.
    - ``use_gate``: Multiply by ``silu(z)``; without, ``in_proj`` is half as large.
    - ``use_norm``: Normalise the result of the scans.
    - ``use_axis_parameters``: Give paths that begin along columns parameters of their own.

    Constructors raise a ValueError for a setting that is out of range, and ``forward`` one for an input that
    is not ``[B, H, W, C]``.

    Attributes:
        dim: Channels C of input and output.
        out_proj: The last projection. Models scale its initial weights by their depth.
        undecayed: Last parts of the names of parameters that take no weight decay though they are matrices.
    """

    dim: int
    out_proj: nn.Linear
    undecayed: ClassVar[tuple[str, ...]] = ()

    @classmethod
    def settings(cls) -> dict[str, Any]:
        """The settings and their defaults."""
        parameters = list(inspect.signature(cls.__init__).parameters.values())
        return {p.name: p.default for p in parameters if p.name not in ("self", "dim")}

    @classmethod
    def settings_at(cls, index: int) -> dict[str, Any]:
        """Settings that depend on the place in a model: that of the block of this index, from 0."""
        return {}

    @abstractmethod
    def reset_scan_parameters(self) -> None:
        """Initialise the parameters that are not those of PyTorch's own layers, and step sizes."""

    @abstractmethod
    def forward(self, x: Tensor) -> Tensor:
        """Mix a map ``[B, H, W, C]`` into a map of the same shape."""
