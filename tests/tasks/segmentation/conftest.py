"""A tiny folder of images with masks, and a tiny model."""

import numpy as np
import pytest
from PIL import Image

from v2m.tasks.segmentation.config import HeadConfig
from v2m.tasks.segmentation.model import Segmenter

SMALL = dict(embed_dim=(8, 16, 24, 32), depths=(1, 1, 1, 1))
CLASSES = ["ground", "red", "green"]


def make_masked_folder(root):
    """Coloured squares on noise, of several sizes: 8 images to train on, 5 to validate on."""
    generator = np.random.default_rng(0)
    (root / "classes.txt").write_text("\n".join(CLASSES) + "\n")
    for split, count in (("train", 8), ("val", 5)):
        for kind in ("images", "masks"):
            (root / kind / split).mkdir(parents=True)
        for number in range(count):
            height, width = ((32, 48), (40, 40), (56, 33))[number % 3]
            pixels = generator.integers(0, 90, (height, width, 3), dtype=np.uint8)
            labels = np.zeros((height, width), np.uint8)
            for label in (1, 2):
                top, left = generator.integers(0, height - 16), generator.integers(0, width - 16)
                pixels[top : top + 16, left : left + 16, label - 1] += 160
                labels[top : top + 16, left : left + 16] = label
            labels[:2] = 255
            Image.fromarray(pixels).save(root / "images" / split / f"{number}.png")
            Image.fromarray(labels).save(root / "masks" / split / f"{number}.png")
    return root


@pytest.fixture(scope="session")
def masked_folder(tmp_path_factory):
    """The folder of ``make_masked_folder``, not to be changed."""
    return make_masked_folder(tmp_path_factory.mktemp("masked"))


def tiny_model(decoder="fpn", classes=3, auxiliary=True, name="v2m_lite_nano", model_args=SMALL):
    """A model of a few thousand weights."""
    return Segmenter(
        name,
        dict(model_args),
        classes,
        (32, 32),
        HeadConfig(decoder, 128 if decoder == "fpn" else 32),
        auxiliary,
    )
