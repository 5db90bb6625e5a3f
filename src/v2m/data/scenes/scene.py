"""One scene of Fashion-MNIST garments on a textured ground.

Each scene is made from a seed and its number alone, so the order in which scenes are made does not matter.
"""

from typing import NamedTuple, get_args

import numpy as np
import numpy.typing as npt

from v2m.data.classes.dataset import LabelledImages
from v2m.data.scenes.config import TILE, ScenesConfig
from v2m.data.scenes.parts import Floats, Mask, cut_out, make_ground, random_tint, resize
from v2m.data.splits import Split

ATTEMPTS = 8
"""Positions that are tried for a garment before it is left out."""

Pixels = npt.NDArray[np.uint8]


class Scene(NamedTuple):
    """A picture and what is in it.

    Attributes:
        split: ``train`` or ``val``.
        image: Colours ``[H, W, 3]``.
        labels: Classes of the garments ``[N]``, from 0.
        masks: What is seen of each ``[N, H, W]``.
    """

    split: Split
    image: Pixels
    labels: npt.NDArray[np.int64]
    masks: Mask

    @property
    def boxes(self) -> npt.NDArray[np.int64]:
        """Boxes ``[N, 4]`` about the masks: x, y, width and height."""
        spans = []
        for axis in (1, 2):
            used = np.asarray(self.masks.any(axis))
            first = used.argmax(1)
            spans.append((first, used.shape[1] - used[:, ::-1].argmax(1) - first))
        (x, width), (y, height) = spans
        return np.stack([x, y, width, height], 1)

    @property
    def semantic(self) -> Pixels:
        """Class of each pixel ``[H, W]``: 0 for the ground, else the label + 1."""
        return (self.masks * (self.labels + 1)[:, None, None]).sum(0, dtype=np.uint8)


def make_scene(config: ScenesConfig, garments: LabelledImages, split: Split, index: int) -> Scene:
    """Make one scene.

    Args:
        config: The settings.
        garments: Garments of the split.
        split: Which; the scenes of another one differ.
        index: Number of the scene.
    """
    # Every draw of a scene is from this generator, in an order that must stay: it makes the same files.
    random = np.random.default_rng((config.seed, get_args(Split).index(split), index))
    size = config.sizes[random.integers(len(config.sizes))]
    image = make_ground(random, *size)
    mean = image.mean((0, 1))
    owner = np.zeros(size, np.int64)  # of each pixel: 1 for the first garment, 0 for the ground
    labels: list[int] = []
    # Pixels of the ground and of each garment: all of them, and those that are seen now.
    whole = np.zeros(1)
    seen = np.zeros(1)
    for chosen in random.integers(len(garments), size=random.integers(*config.objects, endpoint=True)):
        colours, alpha = _dress(random, config, np.asarray(garments.read(int(chosen))), mean)
        mask = alpha >= 0.5
        height, width = mask.shape
        # A garment goes on top of the others, where none of them is covered too much.
        for _ in range(ATTEMPTS):
            top, left = random.integers(0, (size[0] - height, size[1] - width), endpoint=True)
            window = (slice(top, top + height), slice(left, left + width))
            still_seen = seen - np.bincount(owner[window][mask], minlength=len(seen))
            if (still_seen >= (1 - config.hidden) * whole)[1:].all():
                labels.append(garments.targets[chosen])
                owner[window][mask] = len(labels)
                image[window] += alpha[..., None] * (colours - image[window])
                whole, seen = np.append(whole, mask.sum()), np.append(still_seen, mask.sum())
                break
    masks = owner == np.arange(1, len(labels) + 1)[:, None, None]
    pixels = image.round().clip(0, 255).astype(np.uint8)
    return Scene(split, pixels, np.array(labels), masks)


def _dress(
    random: np.random.Generator, config: ScenesConfig, garment: Pixels, ground: Floats
) -> tuple[Floats, Floats]:
    """Colours ``[H, W, 3]`` and alpha ``[H, W]`` of a gray garment, as large as it is to be seen."""
    side = round(TILE * random.uniform(*config.scale))
    mask = cut_out(garment)
    alpha = resize(mask, side, side)
    # Divided by the mask, or the black around the garment would run into its edges.
    shade = resize(mask * garment, side, side) / np.maximum(alpha, 1e-3)
    # What is as thin as a line has less than 1 throughout, and would be left with no pixel.
    alpha = alpha / alpha.max()
    if random.integers(2):
        shade, alpha = shade[:, ::-1], alpha[:, ::-1]
    # Of three colours the one that stands out most from the ground.
    tint = max((random_tint(random) for _ in range(3)), key=lambda tint: float(np.abs(tint - ground).sum()))
    colours = (0.3 + 0.7 * shade / shade.max())[..., None] * tint
    # Cut to what is seen, since the margin of an image is not the garment's.
    rows, columns = (np.flatnonzero((alpha >= 0.5).any(axis)) for axis in (1, 0))
    whole = (slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1))
    return colours[whole], alpha[whole]
