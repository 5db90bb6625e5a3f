"""Fixtures that every test shares."""

import os

import numpy as np
import pytest
import torch
from PIL import Image

from tests.helpers import has_compiler


def pytest_configure(config):
    if not has_compiler:  # PyTorch does the work, and a warning says so
        config.addinivalue_line("filterwarnings", "ignore:v2m. no CPU kernels")
    if os.environ.get("TRITON_INTERPRET") == "1":  # Triton 3.6 makes arrays of one number loop bounds
        config.addinivalue_line(
            "filterwarnings",
            r"ignore:Conversion of an array with ndim > 0:DeprecationWarning:triton\.runtime\.interpreter",
        )


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def make_image_folder(parent):
    """Three classes of noisy images of one colour, 14x10 pixels: 8 each to train on, 4 each to validate."""
    generator = np.random.default_rng(0)
    for split, count in (("train", 8), ("val", 4)):
        for channel, name in enumerate(("red", "green", "blue")):
            folder = parent / "images" / split / name
            folder.mkdir(parents=True)
            for i in range(count):
                pixels = generator.integers(0, 100, (10, 14, 3), dtype=np.uint8)
                pixels[..., channel] += 150
                Image.fromarray(pixels).save(folder / f"{i}.png")
    return parent / "images"


@pytest.fixture
def image_folder(tmp_path):
    """The images of ``make_image_folder``."""
    return make_image_folder(tmp_path)


@pytest.fixture
def victim(tmp_path):
    """A file that nothing may write to."""
    path = tmp_path / "victim"
    path.write_text("precious")
    yield path
    assert path.read_text() == "precious"
