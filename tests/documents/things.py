"""What blocks of documents name and do not make: photos, folders of images, trained models.

A name in a page is the name of the thing here, so a page gets what it names. A new thing is a line of
``THINGS``.
"""

import contextlib
import io
import shutil
from pathlib import Path

import numpy as np
from PIL import Image

from tests.conftest import make_image_folder
from tests.scenes import make_scenes, train_arguments
from v2m.cli import main

NANO = ["--model_args={embed_dim: 8, depth: 1}", "--epochs=1", "--device=cpu"]
"""The least that ``v2m train`` trains of a plain model."""


def run(*arguments):
    """Run a command of ``v2m`` in this process; returns what it printed."""
    output = io.StringIO()
    with contextlib.redirect_stdout(output), contextlib.redirect_stderr(output):
        code = main([str(argument) for argument in arguments])
    assert code == 0, f"v2m {' '.join(map(str, arguments))} returned {code}:\n{output.getvalue()}"
    return output.getvalue()


def make_run(path):
    """A classifier of the digits, which are gray."""
    run("train", "--data=digits", f"--output={path}", *NANO)


def make_geometric(path):
    """Such a classifier, with geometric decay rates."""
    make_run(path.with_name("free"))
    run("convert", path.with_name("free"), path, "--decay=geometric")


def make_folder(path):
    """Photos of three classes, in a part to train on and one to validate on."""
    make_image_folder(path.parent).rename(path)


def make_photo(path):
    pixels = np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path, "JPEG")


def make_photos(path):
    path.mkdir()
    make_photo(path / "first.jpg")
    make_photo(path / "second.jpg")


def make_scenes_folder(path):
    make_scenes(path.parent).rename(path)


def make_detector(path):
    run(*train_arguments("detection", make_scenes(path.parent), path))


def make_segmenter(path):
    run(*train_arguments("segmentation", make_scenes(path.parent), path))


def make_train_features(path):
    run("embed", "random/v2m_nano", "digits", "--split=train", f"--out={path}.npz")
    Path(f"{path}.npz").rename(path)


def make_val_features(path):
    run("embed", "random/v2m_nano", "digits", f"--out={path}.npz")
    Path(f"{path}.npz").rename(path)


def make_config(path):
    """What ``v2m train --data digits --print_config`` prints, in short."""
    path.write_text("data: digits\nmodel: v2m_nano\n")


THINGS = {
    "runs/RUN": make_run,
    "runs/digits": make_run,
    "geometric/": make_geometric,
    "runs/garments": make_run,
    "runs/detector": make_detector,
    "runs/segmenter": make_segmenter,
    "runs/scenes": make_scenes_folder,
    "FOLDER": make_folder,
    "photo.jpg": make_photo,
    "folder/": make_photos,
    "features.npz": make_val_features,
    "train.npz": make_train_features,
    "val.npz": make_val_features,
    "my.yaml": make_config,
}


def make_things(folder, text, kept):
    """Make what a text names.

    Args:
        folder: Where the things are to be.
        text: Commands or Python.
        kept: Folder that keeps each thing for the next page, as some take seconds.
    """
    for name, make in THINGS.items():
        path, once = Path(folder) / name, Path(kept) / make.__name__
        if name not in text or path.exists():
            continue
        if not once.exists():
            once.mkdir()
            make(once / "thing")
        path.parent.mkdir(parents=True, exist_ok=True)
        copy = shutil.copytree if (once / "thing").is_dir() else shutil.copy
        copy(once / "thing", path)
