"""What scenes are made of: textured grounds, and garments without what is around them."""

import colorsys

import numpy as np
import numpy.typing as npt
from PIL import Image

LEVEL = 24
"""Gray level from which a pixel is of the garment."""
SMALL_HOLE = 10
"""Pixels; larger holes stay, such as that of a bag's handle."""
SPECK = 0.1
"""Share of the largest piece of a garment that smaller pieces must have."""

Floats = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]


def cut_out(garment: npt.NDArray[np.uint8]) -> Mask:
    """Where a gray image ``[28, 28]`` shows the garment: no specks, no small holes."""
    from scipy import ndimage  # type: ignore[import-untyped]  # takes a while, and few commands need it

    # The garment is the largest piece, and what is not much smaller, such as the other shoe.
    pieces, _ = ndimage.label(garment >= LEVEL, np.ones((3, 3)))
    sizes = np.bincount(pieces.ravel(), minlength=2)
    sizes[0] = 0
    mask: Mask = (sizes >= max(1.0, SPECK * sizes.max()))[pieces]
    # What is around the garment counts as a hole too; it is large, so it stays.
    holes, _ = ndimage.label(~mask)
    sizes = np.bincount(holes.ravel())
    filled: Mask = mask | (sizes <= SMALL_HOLE)[holes]
    return filled


def resize(values: npt.NDArray[np.generic], height: int, width: int) -> Floats:
    """Resize a map ``[H, W]``, without aliasing where it gets smaller."""
    image = Image.fromarray(values.astype(np.float32))
    return np.asarray(image.resize((width, height), Image.Resampling.BILINEAR))


def random_tint(random: np.random.Generator) -> Floats:
    """A colour that is not dark ``[3]``, 0..255."""
    hue, saturation, value = random.uniform((0, 0.15, 0.55), (1, 0.9, 1.0))
    return 255 * np.array(colorsys.hsv_to_rgb(hue, saturation, value), np.float32)


def make_ground(random: np.random.Generator, height: int, width: int) -> Floats:
    """Two colours that are near to each other, in noise, stripes or checks; colours ``[H, W, 3]``."""
    first = random_tint(random) * np.float32(random.uniform(0.25, 0.9))
    second = first + random.uniform(-60, 60, 3).astype(np.float32)
    cloud = _clouds(random, height, width)
    axes = int(random.integers(3))  # 0 for the noise alone, 1 for stripes, 2 for checks
    share = (_waves(random, height, width, axes) if axes else cloud)[..., None]
    grain = random.normal(0, 4, (height, width, 1)).astype(np.float32)
    ground: Floats = first + share * (second - first) + 50 * (cloud[..., None] - 0.5) + grain
    return ground


def _clouds(random: np.random.Generator, height: int, width: int) -> Floats:
    """Smooth noise of several scales, 0..1."""
    total = np.zeros((height, width), np.float32)
    for cells, weight in ((2, 0.5), (4, 0.25), (8, 0.15), (20, 0.1)):
        total += weight * resize(random.random((cells, cells)), height, width)
    total -= total.min()
    return total / total.max()


def _waves(random: np.random.Generator, height: int, width: int, axes: int) -> Floats:
    """Stripes, or with two axes checks, at any angle, soft or sharp, 0..1."""
    y, x = np.mgrid[:height, :width].astype(np.float32)
    angle, sharpness = random.uniform(0, np.pi), random.uniform(1, 6)
    total = np.ones((height, width), np.float32)
    for axis in range(axes):
        direction = angle + axis * np.pi / 2
        along = np.float32(np.cos(direction)) * x + np.float32(np.sin(direction)) * y
        total *= np.sin(
            along * np.float32(2 * np.pi / random.uniform(6, 24)) + np.float32(random.uniform(0, 6))
        )
    return 0.5 + 0.5 * np.tanh(np.float32(sharpness) * total)
