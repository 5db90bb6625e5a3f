"""Model configurations: one frozen dataclass per family, one instance per variant."""

from dataclasses import dataclass
from typing import Literal

from v2m.layers import Directions

ClassToken = Literal["edge", "middle"]
GlobalPool = Literal["avg", "max", "token", ""]


@dataclass(frozen=True)
class V2MConfig:
    """Plain V2M: one grid from the first block to the last. Every field is a model argument.

    Attributes:
        img_size: Image height and width (or one number for both) that the position embedding is made for;
            images of any other size are taken too, the embedding resized.
        patch_size: Height and width of a patch (or one number for both), in pixels.
        in_chans: Image channels.
        num_classes: Classes of the head; 0 for no head.
        global_pool: Mean (``avg``) or maximum (``max``) over the tokens, the class token (``token``), or none
            (empty); None for ``token`` where there is a class token, else ``avg``.
        embed_dim: Channels C of the map.
        depth: Number of blocks.
        d_state: State size N of the scans.
        d_conv: Length of the causal convolutions.
        expand: Inner channels of a mixer as a multiple of ``embed_dim``.
        dt_rank: Rank of the step size projection, or ``auto`` for ``ceil(embed_dim / 16)``.
        directions: ``corners``, ``corners_rows_first`` or ``released``; see ``v2m.layers.Directions``.
        class_token: A learned row and column of tokens at the bottom and right ``edge`` or through the
            ``middle``, read where they cross; None for none.
        conv_stem: Embed patches by 3x3 convolutions, all but the first depthwise separable, instead of by one
            of the size of a patch; ``patch_size`` must be a power of two.
        use_pos_embed: Add a learned absolute position embedding.
        drop_rate: Dropout before the head.
        drop_path_rate: Drop-path rate of the last block; linear from 0 at the first.
    """

    img_size: int | tuple[int, int] = 224
    patch_size: int | tuple[int, int] = 16
    in_chans: int = 3
    num_classes: int = 1000
    global_pool: GlobalPool | None = None
    embed_dim: int = 192
    depth: int = 24
    d_state: int = 16
    d_conv: int = 4
    expand: int = 2
    dt_rank: int | Literal["auto"] = "auto"
    directions: Directions | str = Directions.CORNERS
    class_token: ClassToken | None = None
    conv_stem: bool = False
    use_pos_embed: bool = True
    drop_rate: float = 0.0
    drop_path_rate: float = 0.0

    def __post_init__(self) -> None:
        for name in ("img_size", "patch_size"):
            size = getattr(self, name)
            if not isinstance(size, int):
                size = tuple(size)  # a list, where it comes from JSON or YAML
                object.__setattr__(self, name, size)
            pair = (size, size) if isinstance(size, int) else size
            if len(pair) != 2 or not all(isinstance(side, int) and side > 0 for side in pair):
                raise ValueError(f"V2MConfig: {name} is {size!r}, expected a positive integer or two of them")
        for name, least in (("in_chans", 1), ("num_classes", 0), ("embed_dim", 1), ("depth", 1)):
            value = getattr(self, name)
            if not isinstance(value, int) or value < least:
                raise ValueError(f"V2MConfig: {name} is {value!r}, expected an integer from {least}")
        for name in ("drop_rate", "drop_path_rate"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"V2MConfig: {name} is {getattr(self, name)!r}, expected 0 <= rate < 1")
        if self.class_token not in (None, "edge", "middle"):
            raise ValueError(
                f"V2MConfig: class_token is {self.class_token!r}, expected 'edge', 'middle' or None"
            )
        if self.global_pool not in (None, "avg", "max", "token", ""):
            raise ValueError(
                f"V2MConfig: global_pool is {self.global_pool!r}, expected 'avg', 'max', 'token', '' or None"
            )
        if self.global_pool == "token" and self.class_token is None:
            raise ValueError("V2MConfig: global_pool is 'token', which needs class_token 'edge' or 'middle'")

    @property
    def pool(self) -> GlobalPool:
        """The pooling that ``global_pool`` stands for."""
        if self.global_pool is not None:
            return self.global_pool
        return "token" if self.class_token else "avg"


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
    "v2m_small_patch16_224": V2MConfig(embed_dim=384, depth=24),
}
"""The plain family, in order of size."""
