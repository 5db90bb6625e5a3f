"""A tiny set of scenes, and tiny models for both tasks that scenes are for."""

from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np

from v2m.cli.options import Parser
from v2m.cli.train import TrainOptions
from v2m.data.classes.dataset import ArrayImages
from v2m.data.scenes import files as scenes
from v2m.data.scenes.config import ScenesConfig
from v2m.data.scenes.files import build_scenes
from v2m.tasks import Task, find_task
from v2m.tasks.config import TrainConfig

TASKS = ("detection", "segmentation")
CLASSES = ["Shirt", "Shoe", "Bag", "Hat"]
SIZES = ((64, 64), (64, 96))
MODEL_ARGS = dict(embed_dim=[8, 16, 24, 32], depths=[1, 1, 1, 1])
MODEL = [f"--model_args={MODEL_ARGS}".replace("'", '"')]
HEADS = dict(
    detection=[
        "--input.min_size=[64]",
        "--input.max_size=96",
        "--input.test_size=64",
        "--head.channels=8",
        "--head.box_channels=16",
        "--head.mask_layers=1",
        "--head.anchor_sizes=[8, 16, 32, 64, 128]",
        "--head.rois=16",
        "--head.pre_nms_top_n=[50, 50]",
        "--head.post_nms_top_n=[20, 20]",
        "--head.detections=10",
        "--head.score_threshold=0",
    ],
    segmentation=["--input.crop_size=32", "--head.channels=8"],
)
PICTURES = dict(
    detection={"predictions.png", "classes.png", "results.json"},
    segmentation={"predictions.png", "classes.png"},
)


def make_scenes(parent: Path, train: int = 12, val: int = 5) -> Path:
    """Scenes of gray squares in 64x64 and 64x96 pixels: a folder for both tasks."""
    pixels = np.zeros((20, 28, 28), np.uint8)
    pixels[:, 5:-5, 5:-5] = np.random.default_rng(0).integers(100, 256, (20, 18, 18))

    def garments(source, split, data_dir):
        return ArrayImages(f"garments {split}", pixels, np.arange(20) % len(CLASSES), CLASSES)

    with patch.object(scenes, "open_dataset", garments):
        list(build_scenes(ScenesConfig(train=train, val=val, sizes=SIZES), parent / "scenes", parent))
    return parent / "scenes"


def train_arguments(task: str, data: Path, output: Path, *more: str) -> list[str]:
    """The arguments of a run of two epochs of three steps, in about a second."""
    return [
        "train",
        f"--task={task}",
        f"--data={data}",
        f"--output={output}",
        "--device=cpu",
        "--epochs=2",
        "--batch_size=4",
        "--ema_decay=0.9",
        *MODEL,
        *HEADS[task],
        *more,
    ]


def configure(task: str, data: Path, output: Path, *more: str) -> TrainConfig:
    """The configuration of such a run, as the command line makes it."""
    command, *arguments = train_arguments(task, data, output, *more)
    return TrainOptions.parse(Parser(command), arguments).training


def opened_task(config: TrainConfig) -> Task[Any]:
    """The task of a configuration with its data, as the engine has it before it builds anything."""
    kind = find_task(config.task)
    task = kind(kind.resolve(config))
    task.open_data(lambda line: None)
    return task
