"""Every recipe trains: its settings, but a tiny model, small images and few steps."""

import math

import numpy as np
import pytest
import torch
from PIL import Image
from rich.console import Console
from timm import create_model

from tests.data.classes.test_named import fashion_archives  # noqa: F401 - a fixture
from tests.scenes import HEADS, MODEL_ARGS, make_scenes
from v2m.cli.options import Parser
from v2m.cli.train import TrainOptions
from v2m.data.classes import named
from v2m.engine.run_folder import RunFolder
from v2m.engine.train import train
from v2m.models.config import HierarchicalV2MConfig
from v2m.recipes import RECIPES

pytestmark = pytest.mark.slow

IMAGES = 1200
"""Training images of a folder: in three epochs enough for what a policy draws once in 500 images."""
PLAIN = dict(embed_dim=8, depth=2)


@pytest.fixture
def quick_run(tmp_path, request):
    """Trains by the options of ``v2m train``, and returns the run folder."""

    def run(*options):
        output = tmp_path / f"run{len(list(tmp_path.glob('run*')))}"
        arguments = [*options, f"--output={output}", "--device=cpu", "--workers=1"]
        train(TrainOptions.parse(Parser("train"), arguments).training, Console(quiet=True))
        found = RunFolder(output)
        assert found.read_unreadable() == []
        assert all(math.isfinite(row["train_loss"]) for row in found.read_metrics())
        return output

    return run


@pytest.fixture
def photos(tmp_path):
    """Two classes of images with edges and colours, 20x16 pixels."""
    random = np.random.default_rng(0)
    for split, count in (("train", IMAGES), ("val", 8)):
        for place in range(count):
            folder = tmp_path / "photos" / split / ("day", "night")[place % 2]
            folder.mkdir(parents=True, exist_ok=True)
            pixels = random.integers(0, 200, (4, 5, 3), dtype=np.uint8).repeat(4, 0).repeat(4, 1)
            Image.fromarray(pixels).save(folder / f"{place}.png")
    return tmp_path / "photos"


def tiny(model):
    """Options that make a model tiny."""
    with torch.device("meta"):
        is_hierarchical = isinstance(create_model(model).config, HierarchicalV2MConfig)
    return "--model_args=" + repr(MODEL_ARGS if is_hierarchical else PLAIN).replace("'", '"')


ON_FOLDERS = [name for name in RECIPES if name.startswith(("imagenet", "finetune", "cifar", "tiny-imagenet"))]
ON_FASHION_MNIST = ["fashion-mnist", "scenes-backbone"]
ON_CLASSES = [*ON_FOLDERS, *ON_FASHION_MNIST, "digits", "digits-finetune", "digits-distill"]
ON_SCENES = [name for name in RECIPES if name not in (*ON_CLASSES, "camvid")]
"""The commands' tests train the recipe of camvid, as it is but for the crop."""


@pytest.mark.parametrize("name", ON_FOLDERS)
def test_recipes_for_folders_train(name, photos, quick_run):
    """With thousands of draws of their policy, each of which must give an image."""
    model = RECIPES[name].config.model
    options = [f"--recipe={name}", f"--data={photos}", "--input.img_size=32", "--batch_size=400", tiny(model)]
    start = ["--epochs=1", f"--data={photos}", "--input.img_size=32", f"--model={model}", tiny(model)]
    if name == "imagenet-distill":
        options.append(f"--distill.teacher={quick_run(*start)}")
    if name == "finetune-384":
        options.append(f"--pretrained={quick_run(*start)}")
    quick_run(*options, "--epochs=3")


def test_recipes_for_digits_train(quick_run):
    start = quick_run("--recipe=digits", "--epochs=1")
    quick_run("--recipe=digits-finetune", "--epochs=1", f"--pretrained={start}")
    quick_run("--recipe=digits-distill", "--epochs=1", f"--distill.teacher={start}")


@pytest.mark.parametrize("name", ON_FASHION_MNIST)
def test_recipes_for_fashion_mnist_train(name, quick_run, fashion_archives, tmp_path, monkeypatch):  # noqa: F811
    monkeypatch.setattr(named, "DEBIAN_FASHION_MNIST", fashion_archives[0])
    options = [f"--data_dir={tmp_path / 'cache'}", "--epochs=1", "--batch_size=10"]
    quick_run(f"--recipe={name}", tiny(RECIPES[name].config.model), *options)


@pytest.mark.parametrize("name", ON_SCENES)
def test_recipes_for_scenes_train(name, quick_run, tmp_path):
    config = RECIPES[name].config
    options = [f"--recipe={name}", f"--data={make_scenes(tmp_path)}", *HEADS[config.task], tiny(config.model)]
    if config.pretrained:
        options.append("--pretrained=null")
    if config.task == "detection" and config.augment.jitter:
        options.append("--augment.crop_size=64")
    quick_run(*options, "--epochs=1", "--batch_size=4")
