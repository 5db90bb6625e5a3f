"""From a PIL image to a normalised tensor, by timm's transforms."""

import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import chain
from typing import Any, TypeVar

from PIL import Image
from timm.data import create_transform
from timm.data.auto_augment import AugmentOp, AugMixAugment, AutoAugment, RandAugment
from timm.data.auto_augment import posterize as timm_posterize
from timm.data.random_erasing import RandomErasing
from timm.data.transforms import RandomResizedCropAndInterpolation
from torch import Tensor
from torchvision import transforms

from v2m.data.augment import AugmentConfig
from v2m.data.errors import TransformError
from v2m.system.errors import first_line

T = TypeVar("T")

Transform = Callable[[Image.Image], Tensor]


@dataclass(frozen=True)
class ImageSpec:
    """The images that a model takes.

    Attributes:
        img_size: Height and width in pixels.
        in_chans: 1 for gray, 3 for colour; images are converted.
        mean: Mean of every channel, of values in 0..1.
        std: Standard deviation likewise.
        crop_pct: Share of the shorter side that the evaluation crop keeps.
        interpolation: Resampling filter.
    """

    img_size: tuple[int, int]
    in_chans: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    crop_pct: float
    interpolation: str

    def __post_init__(self) -> None:
        if self.in_chans not in MODES:
            raise ValueError(f"in_chans is {self.in_chans}, expected 1 (gray) or 3 (colour) to read images")

    @property
    def timm_config(self) -> dict[str, Any]:
        """The same under timm's names."""
        return dict(
            input_size=(self.in_chans, *self.img_size),
            mean=self.mean,
            std=self.std,
            crop_pct=self.crop_pct,
            crop_mode="center",
            interpolation=self.interpolation,
        )


MODES = {1: "L", 3: "RGB"}


@dataclass(frozen=True)
class _InMode:
    """Convert to gray or colour, then apply a transform. Worker processes take objects, but no closures."""

    mode: str
    transform: Transform

    def __call__(self, image: Image.Image) -> Tensor:
        return self.transform(image.convert(self.mode))


@dataclass(frozen=True)
class NamedStep:
    """A step of the augmentation whose errors name the setting that it comes from.

    Attributes:
        setting: The setting, perhaps with its value.
        transform: What is done.
    """

    setting: str
    transform: Callable[..., Any]

    def __call__(self, *parts: Any) -> Any:
        """What the transform makes of an image, and perhaps of what comes with it."""
        try:
            return self.transform(*parts)
        except MemoryError:  # is not the image's fault, which would be left out
            raise
        except Exception as error:  # Pillow, timm and torchvision raise all kinds
            raise ValueError(f"{self.setting}: {first_line(error)}") from error


SETTINGS = {
    RandomResizedCropAndInterpolation: "scale",
    transforms.RandomHorizontalFlip: "hflip",
    AutoAugment: "auto_augment",
    RandAugment: "auto_augment",
    AugMixAugment: "auto_augment",
    transforms.ColorJitter: "color_jitter",
    RandomErasing: "random_erasing",
}
"""The setting that each of timm's steps comes from."""


def apply(transform: Callable[..., T], name: str, *parts: Any) -> T:
    """What a transform makes of an image, and perhaps of what comes with it.

    Args:
        transform: The transform.
        name: Where the image is.
        parts: What is transformed.

    Raises:
        TransformError: the transform fails, for whatever reason but a lack of memory.
    """
    try:
        with warnings.catch_warnings():
            # Pillow warns of large images again when it crops them.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            return transform(*parts)
    except MemoryError:
        raise
    except Exception as error:  # of all kinds, as above
        raise TransformError(name, first_line(error)) from error


LONGEST = 64
"""Shorter sides that the longer side of an image has at most, before it is resized by the shorter one."""


@dataclass(frozen=True)
class _Cut:
    """Cut the ends off a very long image, whose centre alone is seen: resized, it might take gigabytes."""

    transform: Transform

    def __call__(self, image: Image.Image) -> Tensor:
        longest = LONGEST * min(image.size)
        if max(image.size) > longest:
            left, top = (max(0, side - longest) // 2 for side in image.size)
            image = image.crop((left, top, image.width - left, image.height - top))
        return self.transform(image)


def eval_transform(spec: ImageSpec) -> Transform:
    """Resize, crop the centre, normalise."""
    transform = create_transform(**spec.timm_config, is_training=False)
    return _InMode(MODES[spec.in_chans], _Cut(transform))


def check_scaled(height: int, width: int) -> None:
    """See that an image will not have more pixels than Pillow would open, once it is resized.

    Raises:
        ValueError: it will.
    """
    # Pillow warns from its limit on, and refuses from twice that on.
    most = 2 * (Image.MAX_IMAGE_PIXELS or height * width)
    if height * width > most:
        raise ValueError(f"it would be resized to {width:,}x{height:,} pixels, more than {most:,}")


def train_transform(spec: ImageSpec, augment: AugmentConfig) -> Transform:
    """Random crop and flip, the policy and the erasing of ``augment``, then normalise.

    Args:
        spec: The images that the model takes.
        augment: The augmentation; what suits the dataset has been filled in for None.

    Raises:
        ValueError: timm does not know the policy.
    """
    try:
        transform = create_transform(
            **spec.timm_config,
            is_training=True,
            scale=augment.scale,
            ratio=augment.ratio,
            hflip=augment.hflip,
            color_jitter=augment.color_jitter or None,
            auto_augment=augment.auto_augment,
            re_prob=augment.random_erasing,
            re_mode="pixel",
        )
    except (AssertionError, ValueError):  # what timm raises for a policy that it cannot parse
        raise ValueError(
            f"augment.auto_augment is {augment.auto_augment!r}, expected a policy such as 'rand-m9-mstd0.5'"
        ) from None
    transform.transforms = [_named(step, augment) for step in transform.transforms]
    return _InMode(MODES[spec.in_chans], transform)


def _named(step: Any, augment: AugmentConfig) -> Any:
    """A step of timm's that works with any Pillow, and names its setting where it fails."""
    for op in _ops(step):  # timm keeps the function in each operation of a policy
        if op.aug_fn is timm_posterize:
            op.aug_fn = posterize
    setting = SETTINGS.get(type(step))
    return NamedStep(f"augment.{setting} {getattr(augment, setting)!r}", step) if setting else step


def _ops(step: Any) -> Iterable[AugmentOp]:
    """What a policy draws from; nothing for other steps."""
    if isinstance(step, AutoAugment):
        return chain(*step.policy)
    return step.ops if isinstance(step, RandAugment | AugMixAugment) else ()


def posterize(image: Image.Image, bits_to_keep: int, **options: Any) -> Image.Image:
    """timm's, also for no bits or less, which policies draw and Pillow 13 refuses: a black image."""
    if bits_to_keep < 1:
        return Image.new(image.mode, image.size)
    return timm_posterize(image, bits_to_keep, **options)
