"""Images and their labels as training and evaluation take them: torchvision's transforms."""

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional

from v2m.data.masks.dataset import MaskedImages
from v2m.data.masks.open import open_masks
from v2m.data.transforms import NamedStep, check_scaled
from v2m.tasks.segmentation.config import AugmentConfig, InputConfig
from v2m.tasks.timm_models import model_defaults

MOST_ENLARGED = 2**24
"""Most pixels of an image that is enlarged to bring its shorter side to a given length."""
CROPS = 10
"""Number of crops that are tried, until no class takes too large a share of one."""


def resolve_input(config: InputConfig, model: str) -> InputConfig:
    """Fill what ``config`` leaves open from timm's configuration of a model."""
    cfg = model_defaults(model)
    return replace(
        config,
        crop_size=config.crop,
        mean=tuple(config.mean or cfg["mean"]),
        std=tuple(config.std or cfg["std"]),
    )


def open_train_data(
    source: str, data_dir: Path, config: InputConfig, augment: AugmentConfig, short_side: int | None
) -> MaskedImages:
    """Training images with augmentation (resolved): crops of one size."""
    data = open_masks(source, "train", None, config.ignore_index, config.label_map, data_dir=data_dir)
    data.transform = NamedStep("augment", TrainTransform(config, augment, short_side))
    return data


def open_val_data(source: str, data_dir: Path, config: InputConfig, classes: list[str]) -> MaskedImages:
    """Validation images of these classes, of their own sizes."""
    data = open_masks(source, "val", classes, config.ignore_index, config.label_map, data_dir=data_dir)
    data.transform = EvalTransform(config)
    return data


@dataclass(frozen=True)
class EvalTransform:
    """Normalise an image; its labels stay."""

    config: InputConfig

    def __call__(self, image: Image.Image, labels: Tensor) -> tuple[Tensor, Tensor]:
        """The image ``[3, H, W]`` and its labels."""
        return to_tensor(image, self.config), labels


@dataclass(frozen=True)
class TrainTransform:
    """Random scale, crop, flip and photometric distortion; normalise and pad to the size of a crop.

    Attributes:
        config: The images, resolved.
        augment: The augmentation.
        short_side: Pixels of the shorter side at scale 1; None for those that there are.
    """

    config: InputConfig
    augment: AugmentConfig
    short_side: int | None

    def __call__(self, image: Image.Image, labels: Tensor) -> tuple[Tensor, Tensor]:
        """A crop ``[3, H, W]`` and its labels ``[H, W]``."""
        # The size is checked before any memory is taken for it.
        size = self._random_size(image.height, image.width)
        check_scaled(*size)
        whole = tv_tensors.Image(functional.pil_to_tensor(image)), tv_tensors.Mask(labels)
        scaled = functional.resize(whole[0], size, antialias=True), functional.resize(whole[1], size)
        pair = self._crop(*scaled)
        pair = v2.RandomHorizontalFlip(self.augment.hflip)(*pair)
        pixels, labels = PhotometricDistort(p=self.augment.photometric)(*pair)
        height, width = self.config.crop
        missing = [0, 0, width - pixels.shape[-1], height - pixels.shape[-2]]  # left, top, right, bottom
        padded = functional.pad(normalise(pixels, self.config), missing)
        labels = functional.pad(labels, missing, fill=self.config.ignore_index)
        return padded.as_subclass(Tensor), labels.as_subclass(Tensor)

    def _random_size(self, height: int, width: int) -> list[int]:
        scale = torch.empty(()).uniform_(*self.augment.scale).item()
        scale *= base_scale(height, width, self.short_side)
        return [max(1, round(height * scale)), max(1, round(width * scale))]

    def _crop(self, pixels: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """A crop that is not full of one class, or the last that was tried."""
        crop = v2.RandomCrop([min(pair) for pair in zip(self.config.crop, labels.shape, strict=True)])
        for _ in range(CROPS):
            pair: tuple[Tensor, Tensor] = crop(pixels, labels)
            labelled = pair[1][pair[1] != self.config.ignore_index]
            if len(labelled) and labelled.bincount().max() <= self.augment.max_ratio * len(labelled):
                break
        return pair


def base_scale(height: int, width: int, short_side: int | None) -> float:
    """The scale that gives an image this shorter side, limited for narrow images that would be huge."""
    if not short_side:
        return 1.0
    return min(short_side / min(height, width), max(1.0, math.sqrt(MOST_ENLARGED / (height * width))))


class PhotometricDistort(v2.RandomPhotometricDistort):
    """torchvision's, but channels stay in their order: colours tell classes apart."""

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        """How much to change of what."""
        return super().make_params(flat_inputs) | dict(channel_permutation=None)


def normalise(pixels: Tensor, config: InputConfig) -> Tensor:
    """Pixels of 8 bits a channel with the mean and deviation of ``config`` (resolved)."""
    scaled = functional.to_dtype(pixels, torch.float32, scale=True)
    return functional.normalize(scaled, list(config.mean or ()), list(config.std or ()))


def to_tensor(image: Image.Image, config: InputConfig) -> Tensor:
    """An image in RGB as models take it ``[3, H, W]``, in its own size."""
    return normalise(functional.pil_to_tensor(image), config)
