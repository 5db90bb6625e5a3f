"""Gray pixels of more than 8 bits: which value is white."""

from typing import NamedTuple

import numpy as np
from PIL import Image

BITS = (8, 12, 16)
"""Bits that gray values are taken to have; those of cameras, scanners and microscopes."""
LEAST_OF_255 = 16
"""Largest value from which floats are taken for 0..255; between 1 and this they may be either."""


class Depth(NamedTuple):
    """What the pixels of an image count.

    Attributes:
        name: In words.
        scale: What makes white 255.
    """

    name: str
    scale: float


def is_deep(image: Image.Image) -> bool:
    """Whether pixels are gray values of more than 8 bits, or floating point numbers."""
    return image.mode == "F" or image.mode.startswith("I")


def find_depth(image: Image.Image) -> Depth:
    """What the gray values of an image count, by the largest of them.

    Whole numbers have 8, 12 or 16 bits, the least of these that hold them all; PGM files say it themselves.
    Floats are 0..1 or 0..255.

    Args:
        image: It is of a mode that ``is_deep``, and decoded.

    Raises:
        ValueError: no such range holds all values, or one is not finite.
    """
    pixels = np.asarray(image)
    low, high = pixels.min(), pixels.max()
    if image.mode == "F":
        if not np.isfinite(low + high):
            raise ValueError("floating point pixels hold NaN or infinity")
        if low >= 0 and high <= 1:
            return Depth("float 0..1", 255)
        if low >= 0 and LEAST_OF_255 <= high <= 255:
            return Depth("float 0..255", 1)
        raise ValueError(f"floating point pixels from {low:.4g} to {high:.4g}, expected 0..1 or 0..255")
    fitting = [bits for bits in BITS if high < 2**bits]
    if low < 0 or not fitting:
        raise ValueError(f"gray values from {low} to {high}, expected 0..65535; convert them to 8 or 16 bits")
    bits = 16 if image.format == "PPM" else fitting[0]  # Pillow scales PGM by the maximum in its header
    return Depth(f"{bits} bit", 2.0 ** (8 - bits))


def to_8_bits(image: Image.Image) -> Image.Image:
    """An image that ``is_deep`` in 8 bits a pixel: floats are rounded, lower bits cut off.

    Raises:
        ValueError: as ``find_depth``.
    """
    scaled = np.asarray(image, np.float32) * np.float32(find_depth(image).scale)
    return Image.fromarray((np.rint(scaled) if image.mode == "F" else scaled).astype(np.uint8))
