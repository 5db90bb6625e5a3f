"""Small sets of images in COCO format, drawn at random."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

CLASSES = ("cat", "dog", "fish")
IDS = (3, 7, 20)


def write_coco(
    root: Path,
    sizes: dict[str, list[tuple[int, int]]],
    masks: bool = True,
    most: int = 4,
    crowds: bool = True,
    seed: int = 0,
) -> Path:
    """Write a folder with images of these heights and widths for each split; every fourth has no objects."""
    rng = np.random.default_rng(seed)
    (root / "annotations").mkdir(parents=True)
    for split, images in sizes.items():
        content: dict[str, Any] = dict(
            images=[],
            annotations=[],
            categories=[dict(id=i, name=n) for i, n in zip(IDS, CLASSES, strict=True)],
        )
        folder = root / "images" / split
        folder.mkdir(parents=True)
        for number, (height, width) in enumerate(images, 1):
            pixels = rng.integers(0, 60, (height, width, 3), np.uint8)
            name = f"{100 + number:06}.png"
            content["images"].append(dict(id=100 + number, file_name=name, height=height, width=width))
            for i in range(0 if number % 4 == 0 else int(rng.integers(1, most + 1))):
                label = int(rng.integers(len(CLASSES)))
                box = random_box(rng, height, width)
                x, y, w, h = map(round, box)
                pixels[y : y + h, x : x + w, label] = 255
                annotation = dict(
                    id=len(content["annotations"]) + 1,
                    image_id=100 + number,
                    category_id=IDS[label],
                    bbox=box,
                    area=0.7 * box[2] * box[3],
                    iscrowd=int(crowds and i == 1),
                )
                if masks:
                    annotation["segmentation"] = _segmentation(box, height, width, annotation["iscrowd"])
                content["annotations"].append(annotation)
            Image.fromarray(pixels).save(folder / name)
        (root / "annotations" / f"instances_{split}.json").write_text(json.dumps(content))
    return root


def random_box(rng: np.random.Generator, height: int, width: int) -> list[float]:
    """Left, top, width and height within an image, small to large."""
    w, h = (rng.uniform(0.15, 0.8) * side for side in (width, height))
    x, y = rng.uniform(0, width - w), rng.uniform(0, height - h)
    return [round(value, 2) for value in (x, y, w - 0.02, h - 0.02)]


def ellipse(box: list[float], height: int, width: int) -> np.ndarray:
    """Pixels of the ellipse in a box."""
    x, y, w, h = box
    rows, columns = np.mgrid[:height, :width]
    return ((columns + 0.5 - x - w / 2) / (w / 2)) ** 2 + ((rows + 0.5 - y - h / 2) / (h / 2)) ** 2 <= 1


def _segmentation(box: list[float], height: int, width: int, is_crowd: int) -> Any:
    """An octagon as a polygon, or an ellipse as runs."""
    x, y, w, h = box
    if not is_crowd:
        angles = np.linspace(0, 2 * np.pi, 8, endpoint=False)
        points = np.stack([x + w / 2 * (1 + np.cos(angles)), y + h / 2 * (1 + np.sin(angles))], 1)
        return [points.round(2).flatten().tolist()]
    pixels = ellipse(box, height, width).T.flatten().astype(int)
    ends = np.flatnonzero(np.diff(pixels)) + 1
    counts = np.diff([0, *ends, len(pixels)]).tolist()
    return dict(size=[height, width], counts=([0] if pixels[0] else []) + counts)
