"""Images and their objects as training and evaluation take them: torchvision's transforms."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional

from v2m.data.coco.dataset import CocoImages, Objects
from v2m.data.coco.open import open_coco
from v2m.data.splits import Split
from v2m.data.transforms import NamedStep
from v2m.system.errors import DataError
from v2m.tasks.detection.config import AugmentConfig, InputConfig
from v2m.tasks.timm_models import model_defaults

BOXES = "give --head.detector faster_rcnn, which takes boxes alone"


def resolve_input(config: InputConfig, model: str) -> InputConfig:
    """Fill what ``config`` leaves open from timm's configuration of a model."""
    cfg = model_defaults(model)
    return replace(config, mean=tuple(config.mean or cfg["mean"]), std=tuple(config.std or cfg["std"]))


def image_size(config: InputConfig, augment: AugmentConfig) -> tuple[int, int]:
    """Height and width of training images. If they vary, those of a square of the largest shorter side."""
    side = augment.crop_size if augment.jitter else max(config.min_size)
    return side, side


def open_data(
    source: str,
    split: Split,
    has_masks: bool,
    classes: Sequence[str] | None = None,
    strict: bool = False,
    *,
    allow_outside: bool = False,
) -> CocoImages:
    """One split of a dataset, without masks where the detector has none.

    Raises:
        DataError: it cannot be used, has no objects, or no masks for a detector that has.
    """
    data = open_coco(source, split, classes, has_masks, strict, allow_outside=allow_outside)
    if not data.count_objects():
        found = "; ".join(["", *data.warnings])
        raise DataError(f"data: {data.source} has no objects{found}")
    if has_masks and not data.has_masks:
        raise DataError(
            f"data: {data.source} has no segmentation of its objects, which mask_rcnn wants; {BOXES}"
        )
    if any(fault.field == "segmentation" for fault in data.faults):
        data.warnings.append(f"{data.source}: for the objects that mask_rcnn cannot learn from, {BOXES}")
    return data


def open_train_data(
    source: str,
    has_masks: bool,
    config: InputConfig,
    augment: AugmentConfig,
    *,
    allow_outside: bool = False,
) -> CocoImages:
    """Training images with augmentation (resolved), and their objects."""
    data = open_data(source, "train", has_masks, strict=config.strict, allow_outside=allow_outside)
    data.transform = NamedStep("augment", TrainTransform(config, augment))
    return data


def open_val_data(
    source: str, has_masks: bool, classes: Sequence[str], strict: bool, *, allow_outside: bool = False
) -> CocoImages:
    """Validation images of these classes, of their own sizes, and the masks of their objects."""
    data = open_data(source, "val", has_masks, classes, strict, allow_outside=allow_outside)
    data.transform = keep_size
    return data


def to_tensor(image: Image.Image) -> Tensor:
    """Colours ``[3, H, W]``, 0..1."""
    pixels = functional.pil_to_tensor(image.convert("RGB"))
    return functional.to_dtype(pixels, torch.float32, scale=True)


def keep_size(image: Image.Image, objects: Objects) -> tuple[Tensor, Tensor | None]:
    """An image at its own size, which the detector resizes in evaluation, and the masks of its objects."""
    return to_tensor(image), objects.masks


class TrainTransform:
    """Resize or jitter, and mirror; what is left of the objects, crowds left out, is what to find.

    Boxes are cut at the edges of a crop, as torchvision does.

    Args:
        config: The images, resolved.
        augment: Their augmentation.
    """

    def __init__(self, config: InputConfig, augment: AugmentConfig) -> None:
        steps: list[v2.Transform]
        if augment.jitter:
            size = (augment.crop_size, augment.crop_size)
            grey = tuple(round(255 * value) for value in config.mean or ())  # 0 when normalised
            fill = {tv_tensors.Image: grey, "others": 0}
            steps = [
                _ScaleJitter(size, augment.jitter),
                v2.RandomCrop(size, pad_if_needed=True, fill=fill),
            ]
        else:
            # Without antialiasing, as the detector resizes in evaluation.
            steps = [v2.RandomShortestSize(list(config.min_size), config.max_size, antialias=False)]
        steps += [
            v2.RandomHorizontalFlip(augment.hflip),
            v2.SanitizeBoundingBoxes(),
            v2.ToDtype({tv_tensors.Image: torch.float32, "others": None}, scale=True),
        ]
        self._transform = v2.Compose(steps)

    def __call__(self, image: Image.Image, objects: Objects) -> tuple[Tensor, dict[str, Tensor]]:
        """An image ``[3, H, W]``, 0..1, and ``boxes``, ``labels`` and perhaps ``masks`` of its objects."""
        keep = ~objects.crowd
        boxes = tv_tensors.BoundingBoxes(  # type: ignore[call-overload]
            objects.boxes[keep], format="XYXY", canvas_size=(image.height, image.width)
        )
        target: dict[str, Any] = dict(boxes=boxes, labels=objects.labels[keep])
        if objects.masks is not None:
            target["masks"] = tv_tensors.Mask(objects.masks[keep])
        pixels, target = self._transform(functional.to_image(image.convert("RGB")), target)
        # A box may survive the crop although no pixel of its mask does: such an object is not in sight.
        if "masks" in target:
            is_seen = target["masks"].flatten(1).any(1).bool()
            target = {name: value[is_seen] for name, value in target.items()}
        return pixels.as_subclass(Tensor), {n: value.as_subclass(Tensor) for n, value in target.items()}


class _ScaleJitter(v2.ScaleJitter):
    """torchvision's, but a narrow image keeps at least one pixel in each direction."""

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        height, width = super().make_params(flat_inputs)["size"]
        return dict(size=(max(height, 1), max(width, 1)))
