"""Neural network modules that know no task."""

from v2m.layers.block import Stack, V2MBlock, V2MMlpBlock
from v2m.layers.coupled_scan import CoupledScan
from v2m.layers.directions import Directions, choose
from v2m.layers.mixers import (
    MIXERS,
    AttentionMixer,
    ExactMixer,
    LightMixer,
    Mixer,
    RasterMixer,
    SharedConvMixer,
    V2MMixer,
)
from v2m.layers.patch_embed import ConvPatchEmbed
from v2m.layers.scan_parameters import Decay
from v2m.layers.two_passes import TwoPasses

__all__ = [
    "MIXERS",
    "AttentionMixer",
    "ConvPatchEmbed",
    "CoupledScan",
    "Decay",
    "Directions",
    "ExactMixer",
    "LightMixer",
    "Mixer",
    "RasterMixer",
    "SharedConvMixer",
    "Stack",
    "TwoPasses",
    "V2MBlock",
    "V2MMixer",
    "V2MMlpBlock",
    "choose",
]
