"""A picture of scenes beside what is known of them."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy.typing as npt
import torch
from torch import Tensor
from torchvision.utils import draw_bounding_boxes, draw_segmentation_masks

from v2m.pictures.figure import new_sheet, save_figure, short_name

if TYPE_CHECKING:
    from matplotlib.axes import Axes

ENLARGED = 4
SCENES_IN_A_ROW = 3


class DrawnScene(NamedTuple):
    """An image ``[H, W, 3]`` in 0..255, and its objects: boxes, masks ``[objects, H, W]`` and classes."""

    image: npt.NDArray[Any]
    boxes: npt.NDArray[Any]
    masks: npt.NDArray[Any]
    labels: npt.NDArray[Any]


def plot_scenes(scenes: Sequence[DrawnScene], classes: Sequence[str], path: Path, title: str) -> None:
    """Draw scenes, each beside itself with masks, boxes and names of classes.

    Args:
        scenes: Which.
        classes: Names of the classes.
        path: PNG to write.
        title: Heading.
    """
    rows = math.ceil(len(scenes) / SCENES_IN_A_ROW)
    figure, cells = new_sheet(4.6 * SCENES_IN_A_ROW, 2.4 * rows + 0.4, rows, 2 * SCENES_IN_A_ROW)
    for scene, plain, known in zip(scenes, cells[::2], cells[1::2], strict=False):
        plain.imshow(scene.image, interpolation="nearest")
        _draw_known(known, scene, classes)
    save_figure(figure, path, title)


def _draw_known(axis: "Axes", scene: DrawnScene, classes: Sequence[str]) -> None:
    from matplotlib.colors import to_hex

    tints = [to_hex(f"C{label}") for label in scene.labels]
    corners = ENLARGED * torch.from_numpy(scene.boxes)
    # From left, top, width and height to corners; the last pixel is the one before the next box could begin.
    corners[:, 2:] += corners[:, :2] - 1
    image = _enlarged(torch.from_numpy(scene.image).permute(2, 0, 1))
    image = draw_segmentation_masks(image, _enlarged(torch.from_numpy(scene.masks)), alpha=0.5, colors=tints)
    image = draw_bounding_boxes(image, corners, colors=tints, width=2)
    axis.imshow(image.permute(1, 2, 0).numpy())
    for label, tint, (left, top, _, _) in zip(scene.labels, tints, corners.tolist(), strict=True):
        box = dict(facecolor=tint, edgecolor="none", pad=0.6)
        axis.text(left, top, short_name(classes[label]), fontsize=5.5, va="bottom", bbox=box)


def _enlarged(values: Tensor) -> Tensor:
    return values.repeat_interleave(ENLARGED, 1).repeat_interleave(ENLARGED, 2)
