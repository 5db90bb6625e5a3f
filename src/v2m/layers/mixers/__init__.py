"""What mixes the tokens of a block: one class and one file for each way."""

from v2m.layers.mixers.attention import AttentionMixer
from v2m.layers.mixers.base import Mixer
from v2m.layers.mixers.conv import SharedConvMixer
from v2m.layers.mixers.exact import ExactMixer
from v2m.layers.mixers.light import LightMixer
from v2m.layers.mixers.raster import RasterMixer
from v2m.layers.mixers.v2m import V2MMixer

MIXERS: dict[str, type[Mixer]] = {
    "v2m": V2MMixer,
    "conv": SharedConvMixer,
    "exact": ExactMixer,
    "raster": RasterMixer,
    "light": LightMixer,
    "attention": AttentionMixer,
}
"""The mixers by the names that models know them by."""

__all__ = [
    "MIXERS",
    "AttentionMixer",
    "ExactMixer",
    "LightMixer",
    "Mixer",
    "RasterMixer",
    "SharedConvMixer",
    "V2MMixer",
]
