"""Small detectors, and objects for them to learn from."""

import torch

from v2m.tasks.detection.config import HeadConfig, InputConfig
from v2m.tasks.detection.model import Detector

TINY = dict(embed_dim=(8, 8, 16, 16), depths=(1, 1, 1, 1))
BACKBONES = {
    "v2m_lite_nano": TINY,
    "v2m_hierarchical_small": TINY,
    "v2m_nano": dict(embed_dim=16, depth=2),
    "resnet18": {},
}
INPUT = InputConfig((64,), 128, 64, (0.5,) * 3, (0.25,) * 3)


def tiny_head(detector="mask_rcnn", **settings):
    """A head for images of 64 pixels."""
    small = dict(
        channels=16,
        box_channels=16,
        mask_layers=1,
        anchor_sizes=(8, 16, 32, 48, 64),
        rois=16,
        pre_nms_top_n=(50, 50),
        post_nms_top_n=(20, 20),
    )
    return HeadConfig(detector, **small | settings)


def tiny_detector(detector="mask_rcnn", backbone="v2m_lite_nano", classes=3, **settings):
    """A detector of images of 64 pixels."""
    head = tiny_head(detector, **settings)
    return Detector(backbone, BACKBONES[backbone], (64, 64), classes, head, INPUT)


def some_target(count, height, width, classes=3):
    """So many boxes and their masks in an image."""
    first = torch.rand(count, 2) * torch.tensor([width / 2, height / 2])
    boxes = torch.cat([first, first + 8 + torch.rand(count, 2) * 16], 1)
    masks = torch.zeros(count, height, width, dtype=torch.uint8)
    for mask, (left, top, right, bottom) in zip(masks, boxes.int().tolist(), strict=True):
        mask[top:bottom, left:right] = 1
    return dict(boxes=boxes, labels=torch.randint(0, classes, (count,)), masks=masks)
