"""Pictures of detection: boxes, masks and names over images, and scores of classes."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms.v2 import functional
from torchvision.utils import draw_bounding_boxes, draw_segmentation_masks

from v2m.pictures.colours import BLUE, ORANGE, palette
from v2m.pictures.figure import MOST_BARS, new_figure, new_paired_sheet, save_figure, share_axis
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

    boxes: npt.ArrayLike
    labels: npt.ArrayLike
    captions: list[str]
    masks: npt.ArrayLike | None


def draw_objects(image: Image.Image, objects: Drawn, side: int | None = None) -> Image.Image:
    """An image with its objects, each in the colour of its class; later ones are in front.

    Of very many objects the last are drawn.

    Args:
        image: The image.
        objects: What is in it.
        side: Pixels of the longer side; by default the image's own, or more if that is little.
    """
    longest = max(image.size)
    scale = (side or max(longest, SMALLEST_SIDE)) / longest
    width, height = (max(1, round(scale * length)) for length in image.size)
    # torchvision draws on tensors; enlarged first, so that lines and letters are sharp.
    pixels = functional.pil_to_tensor(image.convert("RGB").resize((width, height)))
    labels = np.asarray(objects.labels)[-MOST_DRAWN:].tolist()
    if not labels:
        return functional.to_pil_image(pixels)
    of_class = [tuple(colour) for colour in palette(max(labels) + 1).tolist()]
    colours = [of_class[label] for label in labels]
    if objects.masks is not None:
        masks = torch.from_numpy(np.asarray(objects.masks)[-MOST_DRAWN:]).to(torch.uint8)
        masks = functional.resize_mask(masks, [height, width]).bool()
        pixels = draw_segmentation_masks(pixels, masks, OPACITY, colours)
    boxes = scale * torch.from_numpy(np.asarray(objects.boxes)[-MOST_DRAWN:])
    # Lines and letters grow with the picture.
    line = max(2, round(max(width, height) / 320))
    pixels = draw_bounding_boxes(
        pixels,
        _drawable(boxes, width, height),
        [shortened(shown(caption), LONGEST_CAPTION) for caption in objects.captions[-MOST_DRAWN:]],
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
    # Images of like shape share a row, whose height is that of the taller one.
    images = sorted(images, key=lambda item: item[0].height / item[0].width)
    aspects = [image.height / image.width for image, *_ in images]
    figure, cells = new_paired_sheet(aspects, ("truth", "prediction"), size=(6.4, 3.15), margin=0.8)
    for (left, right), (image, truth, found) in zip(cells, images, strict=True):
        side = round(SHEET_WIDTH * min(max(image.size) / image.width, 2))
        left.imshow(draw_objects(image, truth, side))
        right.imshow(draw_objects(image, found, side))
    save_figure(figure, path, title)


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
    columns = math.ceil(len(rows) / MOST_BARS)
    count = math.ceil(len(rows) / columns)
    kinds = [("boxes", 1, ORANGE)]
    if has_masks:
        kinds.append(("masks", 2, BLUE))
    height = 0.8 / len(kinds)
    figure = new_figure(1.5 + 5 * columns, 1.6 + (0.2 + 0.14 * len(kinds)) * count)
    for column, axis in enumerate(figure.subplots(1, columns, squeeze=False)[0]):
        part = rows[column * count : (column + 1) * count]
        for kind, (name, place, colour) in enumerate(kinds):
            values = [row[place] for row in part]
            places = [i + height * (kind - (len(kinds) - 1) / 2) for i in range(len(part))]
            bars = axis.barh(places, [v or 0.0 for v in values], height, color=colour, label=name)
            texts = ["no objects" if value is None else f"{value:.1%}" for value in values]
            axis.bar_label(bars, texts, padding=3, fontsize=7)
        share_axis(axis, "AP", [name for name, *_ in part], ylim=(count - 0.4, -0.6))
    figure.legend(*axis.get_legend_handles_labels(), loc="outside lower right", ncols=2, frameon=False)
    save_figure(figure, path, title)


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
