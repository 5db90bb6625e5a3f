"""What a run tells before it trains: a line each, as soon as it is known."""

from typing import Any

from accelerate import Accelerator
from torch import nn

from v2m.data.loading import TrainLoader
from v2m.engine.device import describe_device
from v2m.tasks import Task
from v2m.tasks.config import TrainConfig


def about_device(accelerator: Accelerator, config: TrainConfig) -> str:
    """What computes, in which precision, and how many processes there are."""
    processes = accelerator.num_processes
    together = f", {processes} processes" if processes > 1 else ""
    return f"{describe_device(accelerator.device)}, {config.precision}{together}"


def about_data(task: Task[Any]) -> str:
    """Images and classes, and where they are."""
    return (
        f"{len(task.train_data):,} training and {len(task.val_data):,} validation images of "
        f"{len(task.classes):,} classes, in {task.config.data}"
    )


def about_model(task: Task[Any], model: nn.Module, pretrained: str | None) -> str:
    """The model, its size, its images, and the weights that it starts from."""
    parameters = sum(parameter.numel() for parameter in model.parameters())
    start = f", from {pretrained}" if pretrained else ""
    return f"{task.config.model}, {parameters:,} parameters, {task.image_size}{start}"


def about_steps(config: TrainConfig, batches: TrainLoader) -> str:
    """How long the run is, and how it learns."""
    epochs = "1 epoch" if config.epochs == 1 else f"{config.epochs} epochs"
    steps = f"{epochs} of {batches.steps:,} steps of {batches.batch_size} images"
    return f"{steps}, {config.optimizer.name}, lr {config.optimizer.lr:g}"
