"""Settings of semantic segmentation."""

from dataclasses import dataclass, replace
from typing import Literal

from v2m.tasks.checks import check_colours, check_least, check_range, check_shares, check_smoothing
from v2m.tasks.config import EvaluationOptions, TrainConfig

MOST_LABEL = 2**31


@dataclass(frozen=True)
class InputConfig:
    """What images and masks are turned into. Images are converted to colour.

    Attributes:
        crop_size: Height and width of training crops in pixels, or one number for both.
        mean: Mean of every channel, of values in 0..1; None for timm's of the model.
        std: Standard deviation likewise.
        ignore_index: Label of pixels that have none.
        label_map: Labels of values in the mask files, such as {0: 255, 7: 0}; other values stay. By default
            ADE20K's and CamVid's for these, else none.
    """

    crop_size: int | tuple[int, int] = 512
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    ignore_index: int = 255
    label_map: dict[int, int] | None = None

    def __post_init__(self) -> None:
        if min(self.crop) < 1:
            raise ValueError(f"input.crop_size is {self.crop_size}, expected positive numbers")
        check_colours(self, "input.", "mean", "std")
        wrong = [value for value in self.label_map or () if not 0 <= value < 2**16]
        if wrong:
            raise ValueError(f"input.label_map has the value {wrong[0]}, masks have 0 to {2**16 - 1}")
        for name, label in (
            ("ignore_index is", self.ignore_index),
            *(("label_map has the label", label) for label in (self.label_map or {}).values()),
        ):
            if not -MOST_LABEL <= label < MOST_LABEL:
                raise ValueError(f"input.{name} {label}, expected {-MOST_LABEL} to {MOST_LABEL - 1}")

    @property
    def crop(self) -> tuple[int, int]:
        """Height and width of training crops."""
        return (self.crop_size,) * 2 if isinstance(self.crop_size, int) else self.crop_size


@dataclass(frozen=True)
class AugmentConfig:
    """Augmentation of training images.

    Attributes:
        scale: Least and largest factor of the random resize, which comes before the crop.
        hflip: Probability of mirroring.
        photometric: Probability of a change of brightness, and of contrast, saturation and hue.
        max_ratio: Largest share of one class among the labelled pixels of a crop; ten crops are tried.
    """

    scale: tuple[float, float] = (0.5, 2.0)
    hflip: float = 0.5
    photometric: float = 0.5
    max_ratio: float = 0.75

    def __post_init__(self) -> None:
        check_range(self, "augment.", "scale")
        check_shares(self, "augment.", "hflip", "photometric", "max_ratio")


@dataclass(frozen=True)
class HeadConfig:
    """The decoder, of segmentation-models-pytorch.

    Attributes:
        decoder: upernet, fpn, or dpt, which takes the maps of a plain model as they are; the others take
            them from a simple feature pyramid.
        channels: Width of the decoder; for fpn a multiple of 128.
        dropout: Share of the channels that are dropped before the last layer.
    """

    decoder: Literal["upernet", "fpn", "dpt"] = "upernet"
    channels: int = 256
    dropout: float = 0.1

    def __post_init__(self) -> None:
        unit = 128 if self.decoder == "fpn" else 1
        if self.channels < 1 or self.channels % unit:
            expected = f"a multiple of {unit} for {self.decoder}" if unit > 1 else "at least 1"
            raise ValueError(f"head.channels is {self.channels}, expected {expected}")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"head.dropout is {self.dropout}, expected 0 <= dropout < 1")


@dataclass(frozen=True)
class LossConfig:
    """The training loss: cross-entropy, over the labelled pixels.

    Attributes:
        auxiliary: Weight of the loss of an auxiliary head on the map of stride 16; 0 for no such head.
        label_smoothing: Share of a label that is spread over all classes.
    """

    auxiliary: float = 0.4
    label_smoothing: float = 0.0

    def __post_init__(self) -> None:
        check_least(self, "loss.", 0, "auxiliary")
        check_smoothing(self)


@dataclass(frozen=True)
class InferenceConfig:
    """How images are segmented; labels are in any case those of the image's own pixels.

    Attributes:
        window: Height and width of sliding windows in pixels; None for the whole image at once.
        stride: Pixels from one window to the next; None for two thirds of the window.
        scales: Scales of the image whose probabilities are averaged; several are the paper's MS.
        flip: Average with the mirrored image too.
        short_side: Pixels that the shorter side of an image is resized to before it is scaled, also in
            training: 512 for ADE20K. None to leave images as they are.
    """

    window: int | None = None
    stride: int | None = None
    scales: tuple[float, ...] = (1.0,)
    flip: bool = False
    short_side: int | None = None

    def __post_init__(self) -> None:
        check_least(self, "inference.", 1, "window", "stride", "short_side")
        if self.stride is not None and (self.window is None or self.stride > self.window):
            expected = f"at most the window, {self.window}" if self.window else "none without a window"
            raise ValueError(f"inference.stride is {self.stride}, expected {expected}")
        if not self.scales or min(self.scales) <= 0:
            raise ValueError(f"inference.scales is {list(self.scales)}, expected positive numbers")


@dataclass(frozen=True)
class SegmentationOptions(EvaluationOptions):
    """How images are segmented, instead of as the model says.

    Attributes:
        window: Side of a sliding window in pixels; 0 for whole images.
        stride: From one window to the next, in pixels.
        scales: Sizes of the image, whose predictions are averaged.
        flip: Whether to average with the mirrored image.
    """

    window: int | None = None
    stride: int | None = None
    scales: tuple[float, ...] | None = None
    flip: bool | None = None

    def applied(self, inference: InferenceConfig) -> InferenceConfig:
        """How images are segmented with these options.

        Raises:
            ValueError: they do not fit together.
        """
        changes = {name: value for name, value in vars(self).items() if value is not None}
        if self.window is not None:
            # A new window has the usual stride, not that of the old one; a window of 0 is none.
            changes |= dict(window=self.window or None, stride=self.stride)
        return replace(inference, **changes)


@dataclass(frozen=True)
class SegmentationConfig(TrainConfig):
    """Train a model for semantic segmentation.

    Attributes:
        data: A folder with images/train and masks/train, images/val and masks/val, and classes.txt; ADE20K's,
            as it is unpacked; or camvid.
        input: What images and masks are turned into.
        augment: Augmentation of training images.
        head: The decoder.
        loss: The training loss.
        inference: How images are segmented, in evaluation and by the trained model.
    """

    task: Literal["segmentation"] = "segmentation"
    model: str = "v2m_lite_nano"
    input: InputConfig = InputConfig()
    augment: AugmentConfig = AugmentConfig()
    head: HeadConfig = HeadConfig()
    loss: LossConfig = LossConfig()
    inference: InferenceConfig = InferenceConfig()

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.head.decoder == "upernet" and self.batch_size < 2 * self.accumulate:
            raise ValueError(
                f"batch_size is {self.batch_size} in {self.accumulate} parts, expected two images a part for "
                "upernet, which normalises over them"
            )
