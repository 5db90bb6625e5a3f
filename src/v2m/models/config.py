"""Model configurations: one frozen dataclass per family, one instance per variant."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, ClassVar, Literal, TypeVar

from v2m.layers import MIXERS, Decay, Directions, Mixer, choose
from v2m.layers.common import is_size
from v2m.models.variants import HIERARCHICAL_ARGUMENTS, PLAIN_ARGUMENTS

ClassToken = Literal["edge", "middle"]
GlobalPool = Literal["avg", "max", "token", ""]
Config = TypeVar("Config", bound="BackboneConfig")

LEAST = dict(d_state=1, expand=1, sweeps=0)
"""The smallest values of settings of mixers that are integers, each None where nobody says it."""


@dataclass(frozen=True)
class BackboneConfig:
    """What both families have. Every field is a model argument.

    The settings of mixers are the fields that some mixer's constructor takes. Left at None, one is what the
    family says (``mixer_defaults``), else the mixer's own default; those that the chosen mixer does not have
    stay None.

    Attributes:
        in_chans: Image channels.
        num_classes: Classes of the head; 0 for no head.
        mixer: What mixes the tokens: ``v2m`` (two passes, the paper), ``conv`` (the same after one shared 3x3
            convolution), ``exact`` (the recurrence that the paper simplifies), ``raster`` (one dimension),
            ``light`` (matrix products only) or ``attention``; see ``v2m.layers.mixers``.
        d_state: State size N of the scans.
        d_conv: Length of the causal convolutions of ``v2m`` and ``raster``.
        expand: Inner channels of a mixer as a multiple of its width.
        dt_rank: Rank of the step size projection, or ``auto`` for a sixteenth of the width.
        decay: What ``v2m``, ``conv``, ``exact`` and ``raster`` learn of the decay rates of a channel:
            ``free``, all N of them, or ``geometric``, one number for all, which is faster; see
            ``v2m.layers.Decay``.
        directions: Which corners ``v2m``, ``conv`` and ``exact`` start from: ``corners``,
            ``corners_rows_first``, ``opposite_corners``, ``one_corner`` or ``released`` (``v2m`` alone); see
            ``v2m.layers.Directions``.
        window: Height and width of windows, in cells: every other path of ``v2m`` is walked within them, by
            scans with parameters of their own; None for none.
        single_gate: Gate ``v2m`` or ``conv`` once, after all scans, instead of after each of the two passes.
        sweeps: Sweeps by which ``exact`` comes near the exact recurrence; None for that itself.
        drop_rate: Dropout before the head.
        drop_path_rate: Drop-path rate of the last block; linear from 0 at the first.
    """

    mixer_defaults: ClassVar[Mapping[str, Any]] = {}
    """Settings that the family gives its mixers, before the mixers' own defaults."""

    in_chans: int = 3
    num_classes: int = 1000
    mixer: str = "v2m"
    d_state: int | None = None
    d_conv: int | None = None
    expand: int | None = None
    dt_rank: int | Literal["auto"] | None = None
    decay: Decay | str | None = None
    directions: Directions | str | None = None
    window: int | None = None
    single_gate: bool | None = None
    sweeps: int | None = None
    drop_rate: float = 0.0
    drop_path_rate: float = 0.0

    def __post_init__(self) -> None:
        # The mixer first: it tells which other settings there are. A tuple also takes what has no hash.
        if self.mixer not in tuple(MIXERS):
            names = ", ".join(map(repr, MIXERS))
            raise ValueError(f"{self._name}: mixer is {self.mixer!r}, expected one of {names}")
        if self.decay is not None:
            self._set("decay", choose(self._name, "decay", self.decay, Decay))
        if self.directions is not None:
            self._set("directions", choose(self._name, "directions", self.directions, Directions))
        self._check_integers(in_chans=1, num_classes=0, **LEAST)
        for name in ("drop_rate", "drop_path_rate"):
            rate = getattr(self, name)
            if not isinstance(rate, (int, float)) or not 0 <= rate < 1:
                raise ValueError(f"{self._name}: {name} is {rate!r}, expected 0 <= rate < 1")
        if self.single_gate is not None:
            self._check_booleans("single_gate")
        self._resolve_settings()

    def _resolve_settings(self) -> None:
        """Fill in the settings of the mixer; refuse those that it does not have."""
        own = MIXERS[self.mixer].settings()
        for name in self._mixer_settings():
            value = getattr(self, name)
            if name in own:
                self._set(name, self._default(name) if value is None else value)
            elif value is not None:
                others = [repr(mixer) for mixer, kind in MIXERS.items() if name in kind.settings()]
                raise ValueError(
                    f"{self._name}: {name} is {getattr(value, 'value', value)!r}, which needs mixer "
                    f"{_alternatives(others)}, not {self.mixer!r}"
                )

    def _mixer_settings(self) -> list[str]:
        """The names of the fields that are settings of some mixer."""
        taken = {name for kind in MIXERS.values() for name in kind.settings()}
        return [field.name for field in fields(self) if field.name in taken]

    def _default(self, name: str) -> Any:
        """What a setting of the mixer is where nobody says it."""
        return self.mixer_defaults.get(name, MIXERS[self.mixer].settings().get(name))

    def settings_of(self, kind: type[Mixer]) -> dict[str, Any]:
        """The settings of a mixer of this kind: those said here, else the family's, else its own."""
        return {
            name: getattr(self, name, self.mixer_defaults.get(name, default))
            for name, default in kind.settings().items()
        }

    def with_arguments(self: Config, given: Mapping[str, Any]) -> Config:
        """This configuration with other values: a variant with the arguments of a user.

        Where they choose another mixer, this configuration's settings of the former mixer are kept if they
        differ from its defaults and the new mixer has them; the others become the new mixer's defaults. A
        setting that the user gives and the new mixer does not have is refused.

        Raises:
            ValueError: a value is out of range, or the mixer does not have the setting.
        """
        mixer = given.get("mixer", self.mixer)
        if mixer == self.mixer or mixer not in tuple(MIXERS):
            return replace(self, **given)
        own, settings = MIXERS[mixer].settings(), dict(given)
        for name in self._mixer_settings():
            value = getattr(self, name)
            # A mere default says nothing about the variant, and other mixers have other defaults.
            is_kept = name in own and value != self._default(name)
            settings.setdefault(name, value if is_kept else None)
        return replace(self, **settings)

    @property
    def _name(self) -> str:
        return type(self).__name__

    def _set(self, name: str, value: Any) -> None:
        # Frozen for others; resolving its own values is part of making one.
        object.__setattr__(self, name, value)

    def _check_integers(self, **least: int) -> None:
        for name, smallest in least.items():
            value, is_optional = getattr(self, name), name in LEAST
            if not is_size(value, smallest) and not (is_optional and value is None):
                expected = f"an integer from {smallest}" + (" or None" if is_optional else "")
                raise ValueError(f"{self._name}: {name} is {value!r}, expected {expected}")

    def _check_booleans(self, *names: str) -> None:
        for name in names:
            value = getattr(self, name)
            if not isinstance(value, int) or value not in (0, 1):
                raise ValueError(f"{self._name}: {name} is {value!r}, expected True or False")

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
            names = _alternatives(map(repr, choices))
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
        attention_blocks: How many of the last blocks mix by attention instead.
        class_token: A learned row and column of tokens at the bottom and right ``edge`` or through the
            ``middle``, read where they cross; None for none.
        conv_stem: Embed patches by 3x3 convolutions instead of one of the size of a patch.
        use_pos_embed: Add a learned position embedding.
    """

    mixer_defaults: ClassVar[Mapping[str, Any]] = dict(d_state=16, expand=2)

    img_size: int | tuple[int, int] = 224
    patch_size: int | tuple[int, int] = 16
    global_pool: GlobalPool | None = None
    embed_dim: int = 192
    depth: int = 24
    attention_blocks: int = 0
    class_token: ClassToken | None = None
    conv_stem: bool = False
    use_pos_embed: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check_sizes("img_size", "patch_size")
        self._check_integers(embed_dim=1, depth=1, attention_blocks=0)
        self._check_booleans("conv_stem", "use_pos_embed")
        if self.attention_blocks > self.depth:
            raise ValueError(
                f"V2MConfig: attention_blocks is {self.attention_blocks}, expected at most the depth, "
                f"{self.depth}"
            )
        if self.class_token not in (None, "edge", "middle"):
            raise ValueError(
                f"V2MConfig: class_token is {self.class_token!r}, expected 'edge', 'middle' or None"
            )
        self._check_pool(self.global_pool, ("avg", "max", "token", "", None))
        if self.global_pool == "token" and self.class_token is None:
            raise ValueError("V2MConfig: global_pool is 'token', which needs class_token 'edge' or 'middle'")

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

    mixer_defaults: ClassVar[Mapping[str, Any]] = dict(
        d_state=1, expand=1, use_gate=False, use_norm=True, use_axis_parameters=True
    )

    mixer: str = "conv"
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


def _alternatives(words: Iterable[str]) -> str:
    """Words as a part of a sentence: ``a, b or c``."""
    *others, last = words
    return f"{', '.join(others)} or {last}" if others else last


PLAIN = {name: V2MConfig(**arguments) for name, arguments in PLAIN_ARGUMENTS.items()}
"""Configurations of the plain family, in order of size."""

HIERARCHICAL = {
    name: HierarchicalV2MConfig(**arguments) for name, arguments in HIERARCHICAL_ARGUMENTS.items()
}
"""Configurations of the hierarchical family, in order of size."""
