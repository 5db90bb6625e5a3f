"""Detectors: torchvision's, over our backbones and timm's."""

from collections import OrderedDict
from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from accelerate.utils import convert_to_fp32
from torch import Tensor, nn
from torchvision.models.detection import FasterRCNN, MaskRCNN, RetinaNet
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads, MaskRCNNPredictor
from torchvision.models.detection.retinanet import RetinaNetHead
from torchvision.models.detection.roi_heads import paste_masks_in_image
from torchvision.models.detection.rpn import RPNHead
from torchvision.models.detection.transform import GeneralizedRCNNTransform
from torchvision.ops import FeaturePyramidNetwork, MultiScaleRoIAlign
from torchvision.ops.feature_pyramid_network import ExtraFPNBlock, LastLevelMaxPool, LastLevelP6P7
from torchvision.ops.poolers import initLevelMapper

from v2m.models.pyramid import STRIDES
from v2m.tasks.detection.config import DetectionConfig, HeadConfig, InputConfig
from v2m.tasks.detection.data import image_size
from v2m.tasks.evaluation import Autocast
from v2m.tasks.feature_backbone import FeatureBackbone, OnBackbone
from v2m.tasks.names import TIMM

RATIOS = (0.5, 1.0, 2.0)
BOX_CELLS, MASK_CELLS = 7, 14
"""Sides of the maps that the heads take from a region."""


class Detections(NamedTuple):
    """What was found in an image, best first.

    Attributes:
        boxes: Left, top, right and bottom in pixels ``[N, 4]``.
        labels: Class indices ``[N]``.
        scores: Shares ``[N]``.
        masks: bool ``[N, H, W]``, if the detector has masks.
    """

    boxes: Tensor
    labels: Tensor
    scores: Tensor
    masks: Tensor | None


def build(config: DetectionConfig, num_classes: int, pretrained: str | None = None) -> "Detector":
    """The detector of a run (resolved); see ``Task.build``."""
    model = Detector(
        config.model,
        config.model_args,
        image_size(config.input, config.augment),
        num_classes,
        config.head,
        config.input,
        is_pretrained=pretrained == TIMM,
    )
    model.start_from(pretrained)
    return model


class Detector(OnBackbone):
    """A Mask R-CNN, Faster R-CNN or RetinaNet of torchvision.

    Boxes are computed in float32 even under autocast, because bfloat16 lacks most whole numbers above 256.

    Args:
        name: timm's name of the backbone.
        model_args: Its arguments.
        img_size: Height and width of training images in pixels, for backbones that want to know.
        num_classes: Number of classes.
        head: The detector.
        input: The images, resolved.
        is_pretrained: Whether the backbone starts from timm's weights.

    Raises:
        ValueError: the backbone cannot be had; see ``FeatureBackbone``.
    """

    def __init__(
        self,
        name: str,
        model_args: dict[str, Any],
        img_size: tuple[int, int],
        num_classes: int,
        head: HeadConfig,
        input: InputConfig,
        is_pretrained: bool = False,
    ) -> None:
        super().__init__()
        self.img_size, self.num_classes, self.head, self.input = img_size, num_classes, head, input
        is_retinanet = head.detector == "retinanet"
        maps = 3 if is_retinanet else 4
        backbone = FeatureBackbone(name, model_args, img_size, is_pretrained=is_pretrained, maps=maps)
        pyramid = _Pyramid(backbone, head)
        build = _retinanet if is_retinanet else _rcnn
        self.detector = build(pyramid, num_classes, head)
        self.detector.transform = _Transform(
            input.test_size, input.max_size, list(input.mean or ()), list(input.std or ()), _skip_resize=True
        )
        self._first_label = 0 if is_retinanet else 1  # R-CNNs take 0 for the background

    def forward(
        self, images: Sequence[Tensor], targets: Sequence[dict[str, Tensor]] | None = None
    ) -> dict[str, Tensor] | list[dict[str, Tensor]]:
        """Detect the objects of images, or learn from them.

        Args:
            images: ``[3, H, W]``, values in 0..1. In training they are taken as they are, and padded to one
                size; in evaluation they are resized, and padded by themselves to whole cells, so that what is
                found in an image does not depend on the others.
            targets: In training, ``boxes`` ``[N, 4]``, ``labels`` ``[N]`` from 0, and for a Mask R-CNN
                ``masks`` ``[N, H, W]`` of each image.

        Returns:
            In training, the losses. In evaluation, the fields of ``Detections`` for each image.
        """
        if self.training:
            assert targets is not None
            return self.detector(
                list(images), [dict(t, labels=t["labels"] + self._first_label) for t in targets]
            )
        # Only images of one size share a batch, so that none is padded for the sake of another.
        sizes = [self._resized(image) for image in images]
        found: dict[int, dict[str, Tensor]] = {}
        for size in dict.fromkeys(sizes):
            places = [place for place, other in enumerate(sizes) if other == size]
            found |= zip(places, self.detector([images[place] for place in places]), strict=True)
        return [
            dict(found[place], labels=found[place]["labels"] - self._first_label)
            for place in range(len(images))
        ]

    def _resized(self, image: Tensor) -> torch.Size:
        """The shape of an image once it is resized."""
        return self.detector.transform.resize(image.to("meta"))[0].shape

    def heads(self) -> list[nn.Module]:
        """The modules whose outputs are raw scores and boxes."""
        kinds = (RPNHead, FastRCNNPredictor, RetinaNetHead)
        return [module for module in self.modules() if isinstance(module, kinds)]

    def compile(self, *args: Any, **kwargs: Any) -> None:
        """Compile the backbone alone. The rest has shapes that depend on the number of objects."""
        self._features[1].compile(*args, **kwargs)


class _Pyramid(nn.Module):
    """The backbone as torchvision expects it: maps of one width, with one or two coarser ones added."""

    def __init__(self, backbone: FeatureBackbone, head: HeadConfig) -> None:
        super().__init__()
        if tuple(backbone.strides) != STRIDES[-len(backbone.strides) :]:
            raise ValueError(
                f"model: {backbone.name} has maps of strides {backbone.strides}, expected {list(STRIDES)}"
            )
        self.backbone, self.out_channels = backbone, head.channels
        extra: ExtraFPNBlock = LastLevelMaxPool()
        if head.detector == "retinanet":
            extra = LastLevelP6P7(backbone.channels[-1], head.channels)
        self.fpn = FeaturePyramidNetwork(backbone.channels, head.channels, extra)

    def forward(self, x: Tensor) -> OrderedDict[str, Tensor]:
        maps = self.backbone(x)
        # Anchors get the dtype of the maps, and their coordinates need float32.
        return convert_to_fp32(self.fpn(OrderedDict((str(level), m) for level, m in enumerate(maps))))


class _Transform(GeneralizedRCNNTransform):
    """torchvision's, with masks as pixels of the image or not, pasted one by one to save memory.

    Images that are so narrow that resizing would leave nothing of them keep a pixel.
    """

    def resize(
        self, image: Tensor, target: dict[str, Tensor] | None = None
    ) -> tuple[Tensor, dict[str, Tensor] | None]:
        sides = image.shape[-2:]
        scale = min(self.min_size[-1] / min(sides), self.max_size / max(sides))
        if self.training or scale * min(sides) >= 1:
            return super().resize(image, target)
        size = [max(1, int(scale * side)) for side in sides]
        return F.interpolate(image[None], size, mode="bilinear")[0], target

    def postprocess(
        self,
        result: list[dict[str, Tensor]],
        image_shapes: list[tuple[int, int]],
        original_image_sizes: list[tuple[int, int]],
    ) -> list[dict[str, Tensor]]:
        masks = [found.pop("masks", None) for found in result]
        result = super().postprocess(result, image_shapes, original_image_sizes)
        for found, cells, size in zip(result, masks, original_image_sizes, strict=False):
            if cells is not None:
                pixels = torch.zeros(len(cells), *size, dtype=torch.bool, device=cells.device)
                for place, box in enumerate(found["boxes"]):
                    pixels[place] = (
                        paste_masks_in_image(cells[place : place + 1], box[None], size)[0, 0] > 0.5
                    )
                found["masks"] = pixels
        return result


def _rcnn(pyramid: _Pyramid, num_classes: int, head: HeadConfig) -> FasterRCNN:
    """A Faster or Mask R-CNN."""
    width, classes = head.channels, num_classes + 1  # with the background
    parts: dict[str, Any] = dict(
        rpn_anchor_generator=AnchorGenerator(
            tuple((size,) for size in head.anchor_sizes), (RATIOS,) * len(head.anchor_sizes)
        ),
        box_roi_pool=_pool(BOX_CELLS),
        box_head=TwoMLPHead(width * BOX_CELLS**2, head.box_channels),
        box_predictor=FastRCNNPredictor(head.box_channels, classes),
        rpn_pre_nms_top_n_train=head.pre_nms_top_n[0],
        rpn_pre_nms_top_n_test=head.pre_nms_top_n[1],
        rpn_post_nms_top_n_train=head.post_nms_top_n[0],
        rpn_post_nms_top_n_test=head.post_nms_top_n[1],
        box_score_thresh=head.score_threshold,
        box_nms_thresh=head.nms_threshold,
        box_detections_per_img=head.detections,
        box_batch_size_per_image=head.rois,
    )
    if head.has_masks:
        parts |= dict(
            mask_roi_pool=_pool(MASK_CELLS),
            mask_head=MaskRCNNHeads(width, (width,) * head.mask_layers, 1),
            mask_predictor=MaskRCNNPredictor(width, width, classes),
        )
    model = (MaskRCNN if head.has_masks else FasterRCNN)(pyramid, **parts)
    for part in (model.rpn.head, model.roi_heads.box_predictor, model.roi_heads.mask_predictor):
        if part is not None:
            part.register_forward_hook(_in_float32)
    return model


def _pool(cells: int) -> MultiScaleRoIAlign:
    """What cuts regions out of the maps; torchvision would infer strides from the first images' sizes."""
    pool = MultiScaleRoIAlign([str(level) for level in range(len(STRIDES))], cells, sampling_ratio=2)
    pool.scales = [1 / stride for stride in STRIDES]
    pool.map_levels = initLevelMapper(2, 5)
    return pool


def _retinanet(pyramid: _Pyramid, num_classes: int, head: HeadConfig) -> RetinaNet:
    sizes = tuple(tuple(int(size * 2 ** (third / 3)) for third in range(3)) for size in head.anchor_sizes)
    model = RetinaNet(
        pyramid,
        num_classes,
        anchor_generator=AnchorGenerator(sizes, (RATIOS,) * len(sizes)),
        score_thresh=head.score_threshold,
        nms_thresh=head.nms_threshold,
        detections_per_img=head.detections,
        topk_candidates=head.pre_nms_top_n[1],
    )
    model.head.register_forward_hook(_in_float32)
    return model


def _in_float32(module: nn.Module, args: Any, output: Any) -> Any:
    return convert_to_fp32(output)


@torch.no_grad()
def detect(
    model: Detector, images: Sequence[Tensor], device: torch.device, autocast: Autocast = nullcontext
) -> list[Detections]:
    """What a detector in evaluation mode finds in images (see ``Detector``), on the CPU."""
    with autocast():
        found = model([image.to(device, non_blocking=True) for image in images])
    assert isinstance(found, list)
    cpu = [{name: value.cpu() for name, value in objects.items()} for objects in found]
    return [Detections(o["boxes"], o["labels"], o["scores"], o.get("masks")) for o in cpu]
