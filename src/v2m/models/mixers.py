"""The mixer of a block, for both families."""

from v2m.layers import MIXERS, Mixer
from v2m.models.config import BackboneConfig


def build_mixer(config: BackboneConfig, dim: int, index: int, use_attention: bool = False) -> Mixer:
    """The mixer of a block, with the settings of its model.

    Args:
        config: The model's configuration.
        dim: Channels of the block's map.
        index: The number of the block in the model, from 0.
        use_attention: Mix by attention, whatever the model's mixer.

    Raises:
        ValueError: a setting is out of range.
    """
    kind = MIXERS["attention" if use_attention else config.mixer]
    return kind(dim, **(config.settings_of(kind) | kind.settings_at(index)))
