"""Settings of image classification."""

from dataclasses import dataclass


@dataclass(frozen=True)
class InputConfig:
    """What the images are turned into; None takes the dataset's own values, or the model's for a folder.

    Attributes:
        img_size: Height and width in pixels, or one number for both.
        in_chans: 1 for gray, 3 for colour.
        mean: Mean of every channel, of values in 0..1.
        std: Standard deviation likewise.
        crop_pct: Share of the shorter side that the evaluation crop keeps.
    """

    img_size: int | tuple[int, int] | None = None
    in_chans: int | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    crop_pct: float | None = None


@dataclass(frozen=True)
class LossConfig:
    """The training loss: cross-entropy.

    Attributes:
        label_smoothing: Share of a label that is spread over all classes.
    """

    label_smoothing: float = 0.1
