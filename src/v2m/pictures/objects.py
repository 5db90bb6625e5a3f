"""Pictures of detection: boxes, masks and names over images, and scores of classes."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms.v2 import functional
from torchvision.utils import draw_bounding_boxes, draw_segmentation_masks

from v2m.pictures.plots import BLUE, MANY_CLASSES, ORANGE, _figure, _save, _share_axis
from v2m.pictures.segments import palette
from v2m.system.errors import shown
from v2m.system.files import replace_file
from v2m.system.names import shortened

SMALLEST_SIDE = 640
"""Pixels that the longer side of a picture has at least, so that names can be read."""
SHEET_WIDTH = 480
"""Pixels of the width on a sheet."""
MOST_DRAWN = 500
"""Objects that are drawn on an image; their masks are enlarged with it."""
OPACITY = 0.45
"""Of masks over an image."""
FONT = "DejaVuSans.ttf"
LONGEST_CAPTION = 40
"""Letters on a box."""


class Drawn(NamedTuple):
    """Objects of an image, to be drawn.

    Attributes:
        boxes: Left, top, right and bottom in pixels ``[N, 4]``.
        labels: Class indices ``[N]``.
        captions: What to write on each.
        masks: ``[N, H, W]``, if there are masks.
    """

    boxes: Tensor
    labels: Tensor
    captions: list[str]
    masks: Tensor | None


def draw_objects(image: Image.Image, objects: Drawn, side: int | None = None) -> Image.Image:
    """An image with its objects, each in the colour of its class, the last one in front, of many the last.

    Args:
        image: The image.
        objects: What is in it.
        side: Pixels of the longer side; by default the image's own, or more if that is little.
    """
    boxes, labels, captions, masks = objects
    last = slice(-MOST_DRAWN, None)
    objects = Drawn(boxes[last], labels[last], captions[last], None if masks is None else masks[last])
    longest = max(image.size)
    scale = (side or max(longest, SMALLEST_SIDE)) / longest
    width, height = (max(1, round(scale * length)) for length in image.size)
    pixels = functional.pil_to_tensor(image.convert("RGB").resize((width, height)))
    if len(objects.labels):
        colours = [tuple(colour) for colour in palette(int(objects.labels.max()) + 1).tolist()]
        colours = [colours[label] for label in objects.labels.tolist()]
        if objects.masks is not None:
            masks = functional.resize_mask(objects.masks.to(torch.uint8), [height, width]).bool()
            pixels = draw_segmentation_masks(pixels, masks, OPACITY, colours)
        line = max(2, round(max(width, height) / 320))
        pixels = draw_bounding_boxes(
            pixels,
            _drawable(scale * objects.boxes, width, height),
            [shortened(shown(caption), LONGEST_CAPTION) for caption in objects.captions],
            colours,
            width=line,
            font=_font(),
            font_size=max(13, 7 * line),
            label_colors=["black" if _is_light(colour) else "white" for colour in colours],
            label_background_colors=colours,
            fill_labels=True,
        )
    return functional.to_pil_image(pixels)


def plot_detections(image: Image.Image, objects: Drawn, path: Path) -> None:
    """Draw the objects of one image over it.

    Args:
        image: The image.
        objects: What is in it.
        path: PNG to write.
    """
    picture = draw_objects(image, objects)
    replace_file(path, lambda partial: picture.save(partial, format="PNG"))


def plot_objects(images: Sequence[tuple[Image.Image, Drawn, Drawn]], path: Path, title: str) -> None:
    """Draw images with their true objects and with what was found, side by side, two images to a row.

    Args:
        images: Each image, the truth and the prediction.
        path: PNG to write.
        title: Heading.
    """
    images = sorted(images, key=lambda item: item[0].height / item[0].width)
    rows, pairs = math.ceil(len(images) / 2), min(2, len(images))
    tallest = [
        max(image.height / image.width for image, *_ in images[2 * row : 2 * row + 2]) for row in range(rows)
    ]
    figure = _figure(6.4 * pairs, 3.15 * sum(tallest) + 0.8)
    axes = figure.subplots(rows, 2 * pairs, squeeze=False, gridspec_kw=dict(height_ratios=tallest))
    for axis in axes.ravel():
        axis.axis("off")
    for number, (image, truth, found) in enumerate(images):
        first, longest = 2 * (number % 2), max(image.size)
        side = round(SHEET_WIDTH * min(longest / image.width, 2))
        for axis, objects in zip(axes[number // 2, first : first + 2], (truth, found), strict=True):
            axis.imshow(draw_objects(image, objects, side))
    for first in range(0, 2 * pairs, 2):
        for axis, name in zip(axes[0, first : first + 2], ("truth", "prediction"), strict=True):
            axis.set_title(name, fontsize=10)
    _save(figure, path, title)


def plot_class_aps(
    rows: Sequence[tuple[str, float | None, float | None]], has_masks: bool, path: Path, title: str
) -> None:
    """Draw the average precision of every class as bars.

    Args:
        rows: Names of the classes, and average precision of boxes and masks, 0..1; None where there is none.
        has_masks: Whether there are masks.
        path: PNG to write.
        title: Heading.
    """
    columns = math.ceil(len(rows) / MANY_CLASSES)
    count = math.ceil(len(rows) / columns)
    kinds = [("boxes", 1, ORANGE)] + ([("masks", 2, BLUE)] if has_masks else [])
    height = 0.8 / len(kinds)
    figure = _figure(1.5 + 5 * columns, 1.6 + (0.2 + 0.14 * len(kinds)) * count)
    for column, axis in enumerate(figure.subplots(1, columns, squeeze=False)[0]):
        part = rows[column * count : (column + 1) * count]
        for kind, (name, place, colour) in enumerate(kinds):
            values = [row[place] for row in part]
            places = [i + height * (kind - (len(kinds) - 1) / 2) for i in range(len(part))]
            bars = axis.barh(places, [v or 0.0 for v in values], height, color=colour, label=name)
            texts = ["no objects" if value is None else f"{value:.1%}" for value in values]
            axis.bar_label(bars, texts, padding=3, fontsize=7)
        _share_axis(axis, "AP", [name for name, *_ in part], ylim=(count - 0.4, -0.6))
    figure.legend(*axis.get_legend_handles_labels(), loc="outside lower right", ncols=2, frameon=False)
    _save(figure, path, title)


def _drawable(boxes: Tensor, width: int, height: int) -> Tensor:
    """Boxes within a picture, of one pixel at least."""
    edges = torch.tensor([width - 1, height - 1])
    first = torch.minimum(boxes[:, :2].clamp(min=0), edges - 1)
    last = torch.maximum(torch.minimum(boxes[:, 2:], edges), first + 1)
    return torch.cat([first, last], 1)


def _is_light(colour: Sequence[int]) -> bool:
    red, green, blue = colour
    return 0.299 * red + 0.587 * green + 0.114 * blue > 140


def _font() -> str:
    from matplotlib import get_data_path

    return str(Path(get_data_path(), "fonts", "ttf", FONT))
