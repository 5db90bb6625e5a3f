"""Settings of the augmentation of images with a class; ``v2m.data.transforms`` does it."""

from dataclasses import dataclass


@dataclass(frozen=True)
class AugmentConfig:
    """Augmentation of training images.

    Attributes:
        scale: Least and largest share of the image's area that a random crop keeps; None for what suits a
            named dataset, and [0.08, 1] for a folder.
        ratio: Least and largest aspect ratio of the crop.
        hflip: Probability of mirroring; None for what suits a named dataset, and 0.5 for a folder.
        color_jitter: Strength of the change of brightness, contrast and saturation; 0 for none.
        auto_augment: A policy in timm's notation, such as ``rand-m9-mstd0.5-inc1``; None for none.
        random_erasing: Probability of erasing a rectangle.
        mixup: Mixup's alpha; 0 for none.
        cutmix: CutMix's alpha; 0 for none.
        repeats: Times that an image comes in a row, each time augmented anew; an epoch then has fewer
            different images (repeated augmentation).
    """

    scale: tuple[float, float] | None = None
    ratio: tuple[float, float] = (0.75, 1.33)
    hflip: float | None = None
    color_jitter: float = 0.0
    auto_augment: str | None = None
    random_erasing: float = 0.0
    mixup: float = 0.0
    cutmix: float = 0.0
    repeats: int = 1
