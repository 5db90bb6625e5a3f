"""Settings of image classification."""

import math
from dataclasses import dataclass
from typing import Literal

from v2m.data.augment import AugmentConfig
from v2m.tasks.checks import check_least, check_smoothing
from v2m.tasks.config import TrainConfig


@dataclass(frozen=True)
class InputConfig:
    """What the images are turned into; None takes the dataset's own values, or the model's for a folder.

    Attributes:
        img_size: Height and width in pixels, or one number for both.
        in_chans: 1 for gray, 3 for colour.
        mean: Mean of every channel, of values in 0..1.
        std: Standard deviation likewise.
        crop_pct: Share of the shorter side that the evaluation crop keeps.
    """

    img_size: int | tuple[int, int] | None = None
    in_chans: int | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    crop_pct: float | None = None


@dataclass(frozen=True)
class LossConfig:
    """The training loss: cross-entropy.

    Attributes:
        label_smoothing: Share of a label that is spread over all classes.
    """

    label_smoothing: float = 0.1

    def __post_init__(self) -> None:
        check_smoothing(self)


@dataclass(frozen=True)
class DistillConfig:
    """A teacher to learn from besides the labels.

    Attributes:
        teacher: A timm model with its pretrained weights, a run folder or another in timm's hub format; None
            for no teacher.
        kind: soft learns the teacher's probabilities, hard its best class, feature its features.
        weight: Share of the teacher in the loss; the labels have the rest.
        temperature: What both sides' logits are divided by, for soft.
    """

    teacher: str | None = None
    kind: Literal["soft", "hard", "feature"] = "soft"
    weight: float = 0.5
    temperature: float = 1.0

    def __post_init__(self) -> None:
        if not 0 <= self.weight <= 1:
            raise ValueError(f"distill.weight is {self.weight}, expected 0 <= weight <= 1")
        if not self.temperature > 0:
            raise ValueError(f"distill.temperature is {self.temperature}, expected a positive number")


@dataclass(frozen=True)
class ClassificationConfig(TrainConfig):
    """Train a classifier.

    Attributes:
        data: A dataset by name (digits, fashion-mnist, fashion-relations, cifar10, cifar100, tiny-imagenet),
            a folder with <class>/ or with train/<class>/ and val/<class>/, or with tar files, WebDataset
            shards or Parquet files; a table of images and labels (.csv, .jsonl); hfds/NAME for one of the
            hub.
        val_share: Share of each class that is validated on, where the data have no validation images; by
            default 0.2.
        split_seed: Seed of the choice of these, so that runs of any seed have the same ones; by default 0.
        input: What the images are turned into.
        augment: Augmentation of training images.
        loss: The training loss.
        distill: A teacher to learn from too.
    """

    task: Literal["classification"] = "classification"
    val_share: float | None = None
    split_seed: int | None = None
    input: InputConfig = InputConfig()
    augment: AugmentConfig = AugmentConfig()
    loss: LossConfig = LossConfig()
    distill: DistillConfig = DistillConfig()

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.val_share is not None and not 0 < self.val_share < 1:
            raise ValueError(f"val_share is {self.val_share}, expected 0 < val_share < 1")
        for name in ("mixup", "cutmix"):
            if not 0 <= (alpha := getattr(self.augment, name)) < math.inf:
                raise ValueError(f"augment.{name} is {alpha}, expected at least 0")
        check_least(self.augment, "augment.", 1, "repeats")
        if self.batch_size % 2 and (self.augment.mixup or self.augment.cutmix):
            raise ValueError(f"batch_size is {self.batch_size}, expected an even number with mixup or cutmix")
