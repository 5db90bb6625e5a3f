"""Settings of detection."""

from dataclasses import dataclass
from typing import Literal

from v2m.tasks.checks import check_colours, check_least, check_range, check_shares
from v2m.tasks.config import TrainConfig

LEVELS = 5


@dataclass(frozen=True)
class InputConfig:
    """What images are turned into: colour, resized with their shape kept.

    Attributes:
        min_size: Pixels of the shorter side in training; of several one is drawn for each image.
        max_size: Most pixels of the longer side.
        test_size: Pixels of the shorter side in evaluation.
        mean: Mean of every channel, of values in 0..1; None for timm's of the model.
        std: Standard deviation likewise.
        strict: Whether an annotation that cannot be used is an error; if not, it is left out, and counted.
    """

    min_size: tuple[int, ...] = (800,)
    max_size: int = 1333
    test_size: int = 800
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    strict: bool = False

    def __post_init__(self) -> None:
        if not self.min_size or min(self.min_size) < 1:
            raise ValueError(f"input.min_size is {list(self.min_size)}, expected positive numbers")
        for name, size in (("min_size", max(self.min_size)), ("test_size", self.test_size)):
            if not 1 <= size <= self.max_size:
                raise ValueError(f"input.{name} is {size}, expected 1 to input.max_size, {self.max_size}")
        check_colours(self, "input.", "mean", "std")


@dataclass(frozen=True)
class AugmentConfig:
    """Augmentation of training images.

    Attributes:
        jitter: Least and largest scale of large-scale jitter, such as [0.1, 2], of an image that fits into
            the crop; the crop comes next, padded where the image is smaller. None to resize to
            input.min_size instead.
        crop_size: Height and width of that crop in pixels.
        hflip: Probability of mirroring.
    """

    jitter: tuple[float, float] | None = None
    crop_size: int = 1024
    hflip: float = 0.5

    def __post_init__(self) -> None:
        check_range(self, "augment.", "jitter")
        check_least(self, "augment.", 1, "crop_size")
        check_shares(self, "augment.", "hflip")


@dataclass(frozen=True)
class HeadConfig:
    """The detector, of torchvision.

    Attributes:
        detector: mask_rcnn, faster_rcnn (boxes only) or retinanet (boxes only, in one stage).
        channels: Width of the feature pyramid, and of the convolutions on it.
        box_channels: Width of the two layers of the box head of R-CNN.
        mask_layers: Convolutions of the mask head.
        anchor_sizes: Sides of anchors in pixels, one for each level of the pyramid: strides 4 to 64 for
            R-CNN, 8 to 128 for RetinaNet.
        rois: Regions of an image that the heads of R-CNN learn from.
        pre_nms_top_n: Best boxes of a level that are proposed, in training and evaluation; RetinaNet has only
            the latter.
        post_nms_top_n: Proposals for an image that are left after suppression, likewise; R-CNN.
        score_threshold: Least score of a detection.
        nms_threshold: Overlap from which the lower of two boxes of a class is suppressed.
        detections: Most detections of an image.
    """

    detector: Literal["mask_rcnn", "faster_rcnn", "retinanet"] = "mask_rcnn"
    channels: int = 256
    box_channels: int = 1024
    mask_layers: int = 4
    anchor_sizes: tuple[int, ...] = (32, 64, 128, 256, 512)
    rois: int = 512
    pre_nms_top_n: tuple[int, int] = (2000, 1000)
    post_nms_top_n: tuple[int, int] = (2000, 1000)
    score_threshold: float = 0.05
    nms_threshold: float = 0.5
    detections: int = 100

    def __post_init__(self) -> None:
        if len(self.anchor_sizes) != LEVELS or min(self.anchor_sizes) < 1:
            raise ValueError(
                f"head.anchor_sizes is {list(self.anchor_sizes)}, expected {LEVELS} positive numbers"
            )
        check_least(self, "head.", 1, "channels", "box_channels", "mask_layers", "rois", "detections")
        for name in ("pre_nms_top_n", "post_nms_top_n"):
            if min(getattr(self, name)) < 1:
                raise ValueError(f"head.{name} is {list(getattr(self, name))}, expected positive numbers")
        check_shares(self, "head.", "score_threshold", "nms_threshold")

    @property
    def has_masks(self) -> bool:
        """Whether it segments what it detects."""
        return self.detector == "mask_rcnn"


@dataclass(frozen=True)
class DetectionConfig(TrainConfig):
    """Train a detector, with instance masks if it is a Mask R-CNN.

    Attributes:
        data: A folder in COCO format: annotations/instances_train*.json and images in images/train* or
            train*, and likewise val; or train/_annotations.coco.json beside the images.
        input: What images are turned into.
        augment: Augmentation of training images.
        head: The detector.
    """

    task: Literal["detection"] = "detection"
    model: str = "v2m_lite_nano"
    input: InputConfig = InputConfig()
    augment: AugmentConfig = AugmentConfig()
    head: HeadConfig = HeadConfig()
