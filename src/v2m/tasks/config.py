"""What configurations of all tasks have in common. Descriptions of fields are the help of ``v2m train``."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from operator import attrgetter
from typing import Any, Literal, TypeAlias

from v2m.models.former_words import todays_words
from v2m.system.caches import user_cache
from v2m.system.devices import AUTO, check_device_name

Plain: TypeAlias = bool | int | float | list | dict | str | None
"""The type of a setting with any plain data. ``Any`` would let the command line build objects from it."""


def default_data_dir() -> str:
    """Where named datasets are kept: ``$XDG_CACHE_HOME/v2m``, by default ``~/.cache/v2m``."""
    return str(user_cache())


@dataclass(frozen=True)
class OptimizerConfig:
    """The optimiser. timm builds it by name.

    Attributes:
        name: timm's name of it.
        lr: Highest learning rate.
        weight_decay: Weight decay of matrices and kernels (not of rates, skips, biases, norms, embeddings).
        layer_decay: Factor on the learning rate from each block to the one before; None for none.
        clip_grad: Largest norm of the gradient; None for no limit.
    """

    name: str = "adamw"
    lr: float = 4e-3
    weight_decay: float = 0.05
    layer_decay: float | None = None
    clip_grad: float | None = 1.0


@dataclass(frozen=True)
class ScheduleConfig:
    """Learning rate, step by step: linear warm-up, then down.

    Attributes:
        kind: cosine and poly (a power of what is left of the run) go down to min_lr, steps goes down to a
            tenth at every one of the milestones.
        warmup: Share of all steps in which the learning rate rises.
        warmup_lr: Learning rate of the first step.
        min_lr: Learning rate of the last step, for cosine and poly.
        power: The power of poly.
        milestones: Shares of all steps, for steps.
    """

    kind: Literal["cosine", "poly", "steps"] = "cosine"
    warmup: float = 0.1
    warmup_lr: float = 1e-6
    min_lr: float = 1e-5
    power: float = 1.0
    milestones: tuple[float, ...] = (8 / 12, 11 / 12)


@dataclass(frozen=True)
class CheckpointConfig:
    """What is kept of a run, besides the last weights.

    Attributes:
        minutes: Time between checkpoints within an epoch; there is one at the end of every epoch.
        keep_last: Checkpoints that are kept, the last ones.
        keep_best: Keep the weights with the highest validation score too, in the folder best/.
    """

    minutes: float = 10.0
    keep_last: int = 2
    keep_best: bool = True


@dataclass(frozen=True)
class TrainConfig:
    """A training run; each task has its own kind, with more settings.

    Attributes:
        data: Where the images are, as the task has them.
        task: classification, detection (with instance masks, if there are any) or segmentation.
        model: A timm model name; see v2m list.
        model_args: Arguments of the model, such as {directions: corners_rows_first, d_state: 8}.
        pretrained: Weights to start from: a run folder or another in timm's hub format, or timm for those
            that timm has. What they do not have is new, and so is the head for another number of classes.
        output: Run folder; by default runs/<data>-<model>-<time>.
        data_dir: Where named datasets are looked for, and downloaded to; by default ~/.cache/v2m.
        allow_outside: Read images outside of the data folder too, where COCO or parquet files name them.
        epochs: Passes over the training images.
        batch_size: Images per step, over all processes.
        accumulate: Parts that a step is done in, one after another, to save memory.
        seed: Seed of initialisation, order and augmentation.
        workers: Processes that read images, for each process that trains; 0 to read in that one.
        device: auto takes a GPU if there is one; else cpu, cuda, cuda:1 and so on, mps or xpu.
        precision: Arithmetic of the matrix products; states and decays are float32 in any case.
        channels_last: Keep images and maps with their channels last in memory.
        compile: Compile the model by torch.compile.
        grad_checkpointing: Compute the inner maps of blocks again for the gradient, to save memory.
        fsdp: Divide weights, gradients and optimiser over the processes (FSDP2), where cards are small.
        timeout: Minutes that processes wait for each other before the others count as lost.
        skip_limit: Steps in a row that may be skipped for a loss or gradient that is not finite.
        ema_decay: Decay of the moving average of the weights, which is evaluated and saved; 0 for none.
        optimizer: The optimiser.
        schedule: The learning rate over time.
        checkpoint: What is saved, and when.
        trackers: Where metrics go besides the run folder.
    """

    data: str
    task: str = ""
    model: str = "v2m_nano"
    model_args: dict[str, Plain] = field(default_factory=dict)
    pretrained: str | None = None
    output: str | None = None
    data_dir: str = field(default_factory=default_data_dir)
    allow_outside: bool = False
    epochs: int = 12
    batch_size: int = 32
    accumulate: int = 1
    seed: int = 0
    workers: int = 0
    device: str = AUTO
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    channels_last: bool = False
    compile: bool = False
    grad_checkpointing: bool = False
    fsdp: bool = False
    timeout: float = 10.0
    skip_limit: int = 20
    ema_decay: float = 0.99
    optimizer: OptimizerConfig = OptimizerConfig()
    schedule: ScheduleConfig = ScheduleConfig()
    checkpoint: CheckpointConfig = CheckpointConfig()
    trackers: list[Literal["tensorboard", "wandb", "trackio"]] = field(default_factory=list)

    def __post_init__(self) -> None:
        # Configurations of earlier versions have other words; from here on there are today's alone.
        object.__setattr__(self, "model_args", todays_words(self.model, self.model_args))
        check_device_name(self.device)
        for name, least in (
            ("epochs", 1),
            ("batch_size", 1),
            ("accumulate", 1),
            ("workers", 0),
            ("skip_limit", 0),
            ("checkpoint.keep_last", 1),
        ):
            value = attrgetter(name)(self)
            if value < least:
                raise ValueError(f"{name} is {value}, expected at least {least}")
        # Written as "not >" instead of "<=", so that NaN is refused too.
        if not self.timeout > 0:
            raise ValueError(f"timeout is {self.timeout}, expected a positive number of minutes")
        if not self.checkpoint.minutes > 0:
            raise ValueError(f"checkpoint.minutes is {self.checkpoint.minutes}, expected a positive number")
        if not all(0 < share < 1 for share in self.schedule.milestones):
            raise ValueError(
                f"schedule.milestones is {list(self.schedule.milestones)}, expected shares between 0 and 1"
            )
        if not 0 <= self.schedule.warmup < 1:
            raise ValueError(f"schedule.warmup is {self.schedule.warmup}, expected a share from 0 to below 1")
        if not 0 <= self.ema_decay < 1:
            raise ValueError(f"ema_decay is {self.ema_decay}, expected 0 <= ema_decay < 1")
        if not self.optimizer.lr > 0:
            raise ValueError(f"optimizer.lr is {self.optimizer.lr}, expected a positive number")


@dataclass(frozen=True)
class EvaluationOptions:
    """Options of ``v2m eval`` that only one task has. A task with such options has a subclass.

    Each field becomes an option of the same name and type. Its description in the docstring is the help. The
    default is None, which leaves the setting of the saved model.
    """


def settings(config: Any, prefix: str = "") -> dict[str, Any]:
    """Every setting of a configuration by its dotted name, as plain data for the command line and JSON."""
    found: dict[str, Any] = {}
    for item in fields(config):
        name, value = prefix + item.name, getattr(config, item.name)
        found |= settings(value, f"{name}.") if is_dataclass(value) else {name: json.loads(json.dumps(value))}
    return found


def by_dotted_name(nested: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings, as in a configuration file, by their dotted names."""
    found: dict[str, Any] = {}
    for name, value in nested.items():
        name = f"{prefix}{name}"
        found |= by_dotted_name(value, f"{name}.") if isinstance(value, Mapping) else {name: value}
    return found
