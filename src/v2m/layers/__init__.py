"""Neural network modules that know no task."""

from v2m.layers.attention import AttentionMixer
from v2m.layers.block import Stack, V2MBlock, V2MMlpBlock
from v2m.layers.conv_mixer import ConvV2MMixer, CoupledScan, Recurrence
from v2m.layers.directions import Directions, choose
from v2m.layers.light import LightMixer
from v2m.layers.mixer import V2MMixer
from v2m.layers.patch_embed import ConvPatchEmbed
from v2m.layers.raster import RasterMixer
from v2m.layers.two_passes import TwoPasses

__all__ = [
    "AttentionMixer",
    "ConvPatchEmbed",
    "ConvV2MMixer",
    "CoupledScan",
    "Directions",
    "LightMixer",
    "RasterMixer",
    "Recurrence",
    "Stack",
    "TwoPasses",
    "V2MBlock",
    "V2MMixer",
    "V2MMlpBlock",
    "choose",
]
