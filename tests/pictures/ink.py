"""What is drawn in a picture."""

import numpy as np
from PIL import Image


def ink(path):
    """Share of pixels of the picture that are not white, and the colours in it."""
    pixels = np.asarray(Image.open(path).convert("RGB")).reshape(-1, 3)
    return (pixels.min(1) < 250).mean(), {tuple(colour) for colour in np.unique(pixels, axis=0).tolist()}
