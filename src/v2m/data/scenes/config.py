"""Settings of a set of scenes."""

from dataclasses import dataclass

TILE = 28
"""Height and width of a garment's image in pixels."""


@dataclass(frozen=True)
class ScenesConfig:
    """Settings of a set of scenes.

    Attributes:
        train: Scenes to train on, of training garments.
        val: Scenes to validate on, of validation garments.
        seed: Seed of every choice.
        sizes: Heights and widths; each scene has one of them.
        objects: Least and most garments of a scene.
        scale: Least and largest scale of a garment, of 28 pixels.
        hidden: Share of a garment that others may cover at most.
    """

    train: int = 1200
    val: int = 300
    seed: int = 0
    sizes: tuple[tuple[int, int], ...] = ((96, 96), (80, 128), (128, 80))
    objects: tuple[int, int] = (1, 6)
    scale: tuple[float, float] = (0.8, 1.8)
    hidden: float = 0.6

    def __post_init__(self) -> None:
        least = round(TILE * self.scale[1])
        for height, width in self.sizes:
            if min(height, width) < least:
                raise ValueError(f"sizes: {height}x{width}, expected sides of at least {least} pixels")
