"""Neural network modules that know no task."""

from v2m.layers.block import V2MBlock
from v2m.layers.directions import Directions
from v2m.layers.mixer import V2MMixer
from v2m.layers.patch_embed import ConvPatchEmbed

__all__ = ["ConvPatchEmbed", "Directions", "V2MBlock", "V2MMixer"]
