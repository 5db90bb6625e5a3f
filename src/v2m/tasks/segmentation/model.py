"""Segmentation models: a backbone, a decoder of segmentation-models-pytorch, an auxiliary head."""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.segmentation.fcn import FCNHead

from v2m.system.extras import how_to_install, missing
from v2m.tasks.feature_backbone import FeatureBackbone, OnBackbone
from v2m.tasks.names import TIMM
from v2m.tasks.segmentation.config import HeadConfig, InferenceConfig, SegmentationConfig
from v2m.tasks.segmentation.data import base_scale

STRIDE = 32
DECODERS = "segmentation_models_pytorch"
AUXILIARY_MAP = 2
"""Which of the maps the auxiliary head takes: that of stride 16."""
MOST_SCORES = 2**28
"""Class scores that are computed at once: 1 GiB in float32."""


def check_installed() -> None:
    """Raise ``ValueError`` unless segmentation-models-pytorch is there."""
    if missing([DECODERS]):
        raise ValueError(f"task: segmentation needs segmentation-models-pytorch: {how_to_install(DECODERS)}")


def build(config: SegmentationConfig, num_classes: int, pretrained: str | None = None) -> "Segmenter":
    """The model of a run (resolved); see ``Task.build``."""
    model = Segmenter(
        config.model,
        config.model_args,
        num_classes,
        config.input.crop,
        config.head,
        auxiliary=config.loss.auxiliary > 0,
        is_pretrained=pretrained == TIMM,
    )
    model.start_from(pretrained)
    return model


class Segmenter(OnBackbone):
    """Class scores for every pixel of images of any size.

    Images are padded with zeros at the right and bottom to multiples of 32 pixels, and the scores cut.

    Args:
        name: timm's name of the backbone.
        model_args: Its arguments.
        num_classes: Number of classes.
        crop_size: Height and width of training crops.
        head: The decoder.
        auxiliary: Whether to have an auxiliary head for training.
        is_pretrained: Whether to start from timm's weights.

    Raises:
        ValueError: the backbone has no such maps, or takes no such argument.
    """

    def __init__(
        self,
        name: str,
        model_args: dict[str, Any],
        num_classes: int,
        crop_size: tuple[int, int],
        head: HeadConfig,
        auxiliary: bool,
        is_pretrained: bool = False,
    ) -> None:
        super().__init__()
        self.num_classes, self.head = num_classes, head
        height, width = (-(-side // STRIDE) * STRIDE for side in crop_size)
        self.backbone = FeatureBackbone(
            name,
            model_args,
            (height, width),
            is_pretrained=is_pretrained,
            pyramid=head.decoder != "dpt",
        )
        self.decoder, self.segmentation_head = _build_decoder(self.backbone, head, num_classes)
        self.dropout = nn.Dropout2d(head.dropout if head.decoder == "upernet" else 0.0)
        channels = self.backbone.channels[AUXILIARY_MAP]
        self.auxiliary_head = FCNHead(channels, num_classes) if auxiliary else None

    def forward(self, images: Tensor) -> Tensor | tuple[Tensor, Tensor | None]:
        """Class scores ``[B, classes, H, W]`` of images ``[B, 3, H, W]``; in training also auxiliary ones."""
        height, width = images.shape[-2:]
        if self.training and len(images) == 1 and self.head.decoder == "upernet":
            raise ValueError(
                "batch_size: a process has a single image in a part of a step, expected two for upernet, "
                "which normalises over them"
            )
        padded = F.pad(images, (0, -width % STRIDE, 0, -height % STRIDE))
        maps = self.backbone(padded)
        if self.head.decoder == "dpt":
            decoded = self.decoder(maps, [None] * len(maps))
        else:
            decoded = self.decoder([padded, padded, *maps])  # it skips those of strides 1 and 2
        logits = _cut(self.segmentation_head(self.dropout(decoded)), height, width)
        if not self.training:
            return logits
        auxiliary = None
        if self.auxiliary_head is not None:
            coarse = self.auxiliary_head(maps[AUXILIARY_MAP])
            auxiliary = _cut(F.interpolate(coarse, padded.shape[-2:], mode="bilinear"), height, width)
        return logits, auxiliary


def _cut(maps: Tensor, height: int, width: int) -> Tensor:
    """The top left of maps; the maps themselves if that is all of them, since FSDP2 warns of views."""
    return maps if maps.shape[-2:] == (height, width) else maps[..., :height, :width]


def _build_decoder(
    backbone: FeatureBackbone, head: HeadConfig, num_classes: int
) -> tuple[nn.Module, nn.Module]:
    """Decoder and last layer, initialised as segmentation-models-pytorch does."""
    from segmentation_models_pytorch.base import SegmentationHead, initialization
    from segmentation_models_pytorch.decoders.dpt.decoder import DPTDecoder, DPTSegmentationHead
    from segmentation_models_pytorch.decoders.fpn.decoder import FPNDecoder
    from segmentation_models_pytorch.decoders.upernet.decoder import UPerNetDecoder

    width, channels = head.channels, [3, 0, *backbone.channels]
    decoder: nn.Module
    if head.decoder == "dpt":
        decoder = DPTDecoder(
            backbone.channels,
            backbone.strides,
            encoder_has_prefix_tokens=False,
            readout="ignore",
            intermediate_channels=(width, 2 * width, 4 * width, 4 * width),
            fusion_channels=width,
        )
        last = DPTSegmentationHead(width, num_classes)
        next(m for m in last.modules() if isinstance(m, nn.Dropout)).p = head.dropout
    elif head.decoder == "fpn":
        decoder = FPNDecoder(
            channels, pyramid_channels=width, segmentation_channels=width // 2, dropout=head.dropout
        )
        last = SegmentationHead(width // 2, num_classes, kernel_size=1, upsampling=4)
    else:
        decoder = UPerNetDecoder(channels, decoder_channels=width)
        last = SegmentationHead(width, num_classes, kernel_size=1, upsampling=4)
    initialization.initialize_decoder(decoder)
    initialization.initialize_head(last)
    return decoder, last


def predict(model: Segmenter, images: Sequence[Tensor], inference: InferenceConfig) -> list[Tensor]:
    """Class scores ``[classes, H, W]`` (float32) of each image ``[3, H, W]``, at its own size.

    Their softmax are the probabilities; those of several scales are averaged, and so are scores where windows
    overlap. An image's scores do not depend on the others.

    Args:
        model: The model, in evaluation mode.
        images: The images, normalised, on the model's device, of any sizes.
        inference: How they are segmented.
    """
    found = dict(iter_predictions(model, images, inference))
    return [found[i] for i in range(len(images))]


@torch.no_grad()
def iter_predictions(
    model: Segmenter, images: Sequence[Tensor], inference: InferenceConfig
) -> Iterator[tuple[int, Tensor]]:
    """Like ``predict``, some images at a time: the number of each and its scores, those of one size first.

    Images of one size are segmented together, as many as have 1 GiB of scores.
    """
    by_size: dict[tuple[int, ...], list[int]] = {}
    for number, image in enumerate(images):
        by_size.setdefault(tuple(image.shape[-2:]), []).append(number)
    for size, numbers in by_size.items():
        most = max(1, MOST_SCORES // (model.num_classes * size[0] * size[1]))
        for start in range(0, len(numbers), most):
            part = numbers[start : start + most]
            yield from zip(
                part, _predict(model, torch.stack([images[i] for i in part]), inference), strict=True
            )


def _predict(model: Segmenter, images: Tensor, inference: InferenceConfig) -> Tensor:
    """Class scores ``[B, classes, H, W]`` of images of one size, with all scales."""
    height, width = images.shape[-2:]
    base = base_scale(height, width, inference.short_side)
    views = len(inference.scales) * (2 if inference.flip else 1)
    total: Tensor | None = None
    for scale in inference.scales:
        scaled = [max(1, round(side * base * scale)) for side in (height, width)]
        view = images if scaled == [height, width] else _resize(images, scaled, antialias=True)
        for is_flipped in (False, True) if inference.flip else (False,):
            logits = _slide(model, view.flip(-1) if is_flipped else view, inference)
            logits = logits.flip(-1) if is_flipped else logits
            logits = logits if scaled == [height, width] else _resize(logits, [height, width])
            if views == 1:
                return logits
            probabilities = logits.softmax(1)
            total = probabilities if total is None else total.add_(probabilities)
    # Logarithms of the mean probabilities are scores again: their softmax gives the probabilities back.
    assert total is not None
    return total.div_(views).clamp_(min=torch.finfo(total.dtype).tiny).log_()


def _resize(maps: Tensor, size: list[int], antialias: bool = False) -> Tensor:
    return F.interpolate(maps, size, mode="bilinear", antialias=antialias)


def _slide(model: Segmenter, images: Tensor, inference: InferenceConfig) -> Tensor:
    """Class scores of images, from windows; the last ones end at the edge."""
    height, width = images.shape[-2:]
    window = inference.window
    if window is None:
        return model(images).float()
    stride = inference.stride or max(1, window * 2 // 3)
    total, count = None, images.new_zeros(height, width, dtype=torch.float32)
    for top in _starts(height, window, stride):
        for left in _starts(width, window, stride):
            place = (..., slice(top, top + window), slice(left, left + window))
            logits = model(images[place]).float()
            if total is None:
                total = logits.new_zeros(*logits.shape[:2], height, width)
            total[place] += logits
            count[place] += 1
    assert total is not None
    return total.div_(count)


def _starts(side: int, window: int, stride: int) -> list[int]:
    """Where windows begin along a side, evenly but for the last, which ends at the edge."""
    last = max(side - window, 0)
    return [*range(0, last, stride), last]
