"""Model configurations: one frozen dataclass per family, one instance per variant."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any, Literal

from v2m.layers import Directions, Recurrence, choose
from v2m.layers.common import is_size

ClassToken = Literal["edge", "middle"]
GlobalPool = Literal["avg", "max", "token", ""]


class Mixer(str, Enum):
    """What mixes the tokens of a block."""

    V2M = "v2m"
    """Selective scans in two dimensions: the paper's."""

    RASTER = "raster"
    """Selective scans in one dimension, over the rows one after the other, forwards and backwards: Vim's."""

    LIGHT = "light"
    """Two-dimensional scans with one decay per head, which are matrix products."""


@dataclass(frozen=True)
class BackboneConfig:
    """What both families have. Every field is a model argument.

    Attributes:
        in_chans: Image channels.
        num_classes: Classes of the head; 0 for no head.
        mixer: ``v2m`` (two dimensions), ``raster`` (one, the baseline) or ``light`` (matrix products only).
        d_state: State size N of the scans.
        expand: Inner channels of a mixer as a multiple of its width.
        dt_rank: Rank of the step size projection, or ``auto`` for a sixteenth of the width.
        directions: Which corners a ``v2m`` mixer starts from: ``corners``, ``corners_rows_first``,
            ``opposite_corners``, ``one_corner`` or ``released``; see ``v2m.layers.Directions``.
        recurrence: How the states of a ``v2m`` mixer move: ``separable`` (the paper), ``exact`` or
            ``iterative``; see ``v2m.layers.Recurrence``. The last two come with ``conv2d``.
        iterations: Sweeps of the ``iterative`` recurrence.
        drop_rate: Dropout before the head.
        drop_path_rate: Drop-path rate of the last block; linear from 0 at the first.
    """

    in_chans: int = 3
    num_classes: int = 1000
    mixer: Mixer | str = Mixer.V2M
    d_state: int = 16
    expand: int = 2
    dt_rank: int | Literal["auto"] = "auto"
    directions: Directions | str = Directions.CORNERS
    recurrence: Recurrence | str = Recurrence.SEPARABLE
    iterations: int = 2
    drop_rate: float = 0.0
    drop_path_rate: float = 0.0

    def __post_init__(self) -> None:
        for name, enum in (("mixer", Mixer), ("directions", Directions), ("recurrence", Recurrence)):
            self._set(name, choose(self._name, name, getattr(self, name), enum))
        self._check_integers(in_chans=1, num_classes=0, d_state=1, expand=1, iterations=0)
        for name in ("drop_rate", "drop_path_rate"):
            rate = getattr(self, name)
            if not isinstance(rate, (int, float)) or not 0 <= rate < 1:
                raise ValueError(f"{self._name}: {name} is {rate!r}, expected 0 <= rate < 1")
        if self.mixer is not Mixer.V2M:
            self._check_unset("directions", "recurrence")

    @property
    def _name(self) -> str:
        return type(self).__name__

    def _set(self, name: str, value: Any) -> None:
        object.__setattr__(self, name, value)

    def _check_integers(self, **least: int) -> None:
        for name, smallest in least.items():
            value = getattr(self, name)
            if not is_size(value, smallest):
                raise ValueError(f"{self._name}: {name} is {value!r}, expected an integer from {smallest}")

    def _check_unset(self, *names: str) -> None:
        """Raise unless settings that only the mixer ``v2m`` has are left at their defaults."""
        for name in names:
            default = type(self).__dataclass_fields__[name].default
            if getattr(self, name) != default:
                value = getattr(self, name)
                raise ValueError(
                    f"{self._name}: {name} is {getattr(value, 'value', value)!r}, which needs mixer 'v2m', "
                    f"not {Mixer(self.mixer).value!r}"
                )

    def _check_sizes(self, *names: str) -> None:
        for name in names:
            size = getattr(self, name)
            if isinstance(size, (list, tuple)):
                size = tuple(size)  # a list, where it comes from JSON or YAML
                self._set(name, size)
            pair = size if isinstance(size, tuple) else (size, size)
            if len(pair) != 2 or not all(map(is_size, pair)):
                raise ValueError(
                    f"{self._name}: {name} is {size!r}, expected a positive integer or two of them"
                )

    def _check_pool(self, value: str | None, choices: Sequence[str | None]) -> None:
        if value not in choices:
            names = " or".join(", ".join(repr(choice) for choice in choices).rsplit(",", 1))
            raise ValueError(f"{self._name}: global_pool is {value!r}, expected {names}")


@dataclass(frozen=True)
class V2MConfig(BackboneConfig):
    """Plain V2M: one grid from the first block to the last. Every field is a model argument.

    Attributes:
        img_size: Image height and width (or one number for both) that the position embedding is made for;
            images of any other size are taken too, the embedding resized.
        patch_size: Height and width of a patch (or one number for both), in pixels.
        global_pool: Mean (``avg``) or maximum (``max``) over the tokens, the class token (``token``), or none
            (empty); None for ``token`` where there is a class token, else ``avg``.
        embed_dim: Channels C of the map.
        depth: Number of blocks.
        d_conv: Length of the causal convolutions.
        conv2d: One depthwise 3x3 convolution before all scans of a ``v2m`` mixer instead of causal ones.
        single_gate: Gate a ``v2m`` mixer once, after all its scans, instead of after each of the two passes;
            the other recurrences are gated so in any case.
        window: Height and width of windows, in cells: every other path of a ``v2m`` mixer is walked within
            them, by scans with parameters of their own; None for none.
        attention_blocks: How many of the last blocks mix by attention instead.
        class_token: A learned row and column of tokens at the bottom and right ``edge`` or through the
            ``middle``, read where they cross; None for none.
        conv_stem: Embed patches by 3x3 convolutions instead of one of the size of a patch.
        use_pos_embed: Add a learned position embedding.
    """

    img_size: int | tuple[int, int] = 224
    patch_size: int | tuple[int, int] = 16
    global_pool: GlobalPool | None = None
    embed_dim: int = 192
    depth: int = 24
    d_conv: int = 4
    conv2d: bool = False
    single_gate: bool = False
    window: int | None = None
    attention_blocks: int = 0
    class_token: ClassToken | None = None
    conv_stem: bool = False
    use_pos_embed: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check_sizes("img_size", "patch_size")
        self._check_integers(embed_dim=1, depth=1, attention_blocks=0)
        for name in ("conv2d", "single_gate", "conv_stem", "use_pos_embed"):
            value = getattr(self, name)
            if not isinstance(value, int) or value not in (0, 1):
                raise ValueError(f"{self._name}: {name} is {value!r}, expected True or False")
        if self.attention_blocks > self.depth:
            raise ValueError(
                f"V2MConfig: attention_blocks is {self.attention_blocks}, expected at most the depth, "
                f"{self.depth}"
            )
        if self.mixer is not Mixer.V2M:
            self._check_unset("conv2d", "single_gate", "window")
        if self.has_conv2d and self.window is not None:
            raise ValueError(
                f"V2MConfig: window is {self.window!r}, expected None with conv2d or another recurrence "
                "than 'separable'"
            )
        if self.class_token not in (None, "edge", "middle"):
            raise ValueError(
                f"V2MConfig: class_token is {self.class_token!r}, expected 'edge', 'middle' or None"
            )
        self._check_pool(self.global_pool, ("avg", "max", "token", "", None))
        if self.global_pool == "token" and self.class_token is None:
            raise ValueError("V2MConfig: global_pool is 'token', which needs class_token 'edge' or 'middle'")

    @property
    def has_conv2d(self) -> bool:
        """Whether one convolution goes before all scans: ``conv2d``, or a recurrence that comes with it."""
        return self.conv2d or self.recurrence is not Recurrence.SEPARABLE

    @property
    def pool(self) -> GlobalPool:
        """The pooling that ``global_pool`` stands for."""
        if self.global_pool is not None:
            return self.global_pool
        return "token" if self.class_token else "avg"


@dataclass(frozen=True)
class HierarchicalV2MConfig(BackboneConfig):
    """Hierarchical V2M: four stages of blocks with MLPs, strides 4 to 32. Every field is a model argument.

    Attributes:
        img_size: Image height and width (or one number for both) that the model is meant for; only kept.
        global_pool: Mean (``avg``) or maximum (``max``) over the cells, or none (empty).
        embed_dim: Channels of every stage.
        depths: Blocks of every stage.
        mlp_ratio: Hidden channels of an MLP as a multiple of those of its stage.
        attention_stages: How many of the last stages mix by attention instead.
    """

    d_state: int = 1
    expand: int = 1
    img_size: int | tuple[int, int] = 224
    global_pool: Literal["avg", "max", ""] = "avg"
    embed_dim: tuple[int, ...] = (96, 192, 384, 768)
    depths: tuple[int, ...] = (2, 2, 8, 2)
    mlp_ratio: float = 4.0
    attention_stages: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check_sizes("img_size")
        for name in ("embed_dim", "depths"):
            values = getattr(self, name)
            if not isinstance(values, (list, tuple)) or len(values) != 4 or not all(map(is_size, values)):
                raise ValueError(f"{self._name}: {name} is {values!r}, expected four positive integers")
            self._set(name, tuple(values))
        self._check_integers(attention_stages=0)
        if self.attention_stages > len(self.depths):
            raise ValueError(f"{self._name}: attention_stages is {self.attention_stages}, expected at most 4")
        if not isinstance(self.mlp_ratio, (int, float)) or not 0 < self.mlp_ratio < float("inf"):
            raise ValueError(f"{self._name}: mlp_ratio is {self.mlp_ratio!r}, expected a positive number")
        if self.directions is Directions.RELEASED:
            raise ValueError(f"{self._name}: directions is 'released', which plain models alone have")
        self._check_pool(self.global_pool, ("avg", "max", ""))

    @property
    def pool(self) -> GlobalPool:
        """The pooling, under the name that both families have for it."""
        return self.global_pool


PLAIN = {
    "v2m_nano": V2MConfig(img_size=32, patch_size=2, embed_dim=64, depth=4, d_state=8),
    "v2m_micro": V2MConfig(
        img_size=32,
        patch_size=4,
        embed_dim=128,
        depth=3,
        d_state=8,
        expand=1,
        directions=Directions.CORNERS_ROWS_FIRST,
        conv_stem=True,
    ),
    "v2m_tiny_patch16_224": V2MConfig(embed_dim=192, depth=24),
    "v2m_tiny_local": V2MConfig(embed_dim=192, depth=24, window=7),
    "v2m_small_patch16_224": V2MConfig(embed_dim=384, depth=24),
    "v2m_small_local": V2MConfig(embed_dim=384, depth=24, window=7),
}
"""The plain family, in order of size."""

HIERARCHICAL = {
    "v2m_lite_nano": HierarchicalV2MConfig(
        mixer=Mixer.LIGHT, d_state=16, embed_dim=(32, 64, 96, 192), depths=(1, 1, 4, 1), mlp_ratio=3.0
    ),
    "v2m_lite_tiny": HierarchicalV2MConfig(
        mixer=Mixer.LIGHT, d_state=16, embed_dim=(32, 64, 128, 256), depths=(1, 1, 6, 2), mlp_ratio=3.0
    ),
    "v2m_lite_small": HierarchicalV2MConfig(
        mixer=Mixer.LIGHT, d_state=16, embed_dim=(32, 64, 192, 320), depths=(1, 1, 7, 2), mlp_ratio=3.0
    ),
    "v2m_hierarchical_small": HierarchicalV2MConfig(depths=(2, 2, 8, 2), expand=1),
    "v2m_hierarchical_base": HierarchicalV2MConfig(depths=(2, 2, 15, 2), expand=2),
}
"""The hierarchical family, in order of size."""
