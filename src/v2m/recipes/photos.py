"""Settings for a folder of images that nobody has a recipe for, from how many and how large they are.

They are a start that two cores of a CPU train in minutes (tens of images) to hours (ten thousands). Whatever
the user gives wins, and the rest follows from it.
"""

import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from v2m.data.augment import AugmentConfig
from v2m.data.named import DATASETS
from v2m.data.splits import VAL_SHARE
from v2m.system.errors import DataError
from v2m.tasks.classification.config import ClassificationConfig, InputConfig
from v2m.tasks.config import OptimizerConfig, TrainConfig
from v2m.tasks.names import TIMM

# The command line needs this module for its help, and PyTorch only once there are images.
if TYPE_CHECKING:
    from v2m.data.classes.survey import Survey

THUMBNAIL, SMALL = 40, 80
"""Pixels of the shorter side, up to which images are thumbnails, and small ones."""
FEW, MANY = 2_000, 20_000
"""Images to train on, below which they are few, and from which on they are many."""
FEW_OF_A_CLASS = 20
WITH_WEIGHTS = "resnet18"
"""A small model of timm's that has weights."""
CHOSEN = (
    "model",
    "epochs",
    "batch_size",
    "ema_decay",
    "input.img_size",
    "augment.scale",
    "augment.color_jitter",
    "optimizer.lr",
)
"""Settings that are chosen here."""


@dataclass(frozen=True)
class Given:
    """What the user has given, which the other settings follow; None for what is open.

    Attributes:
        model: Name of the model.
        pretrained: Weights to start from.
        img_size: Height and width of the images.
        epochs: Passes over the images.
        batch_size: Images per step.
        val_share: Share of the images to validate on.
        allow_outside: Whether a table may name images elsewhere.
    """

    model: str | None = None
    pretrained: str | None = None
    img_size: int | None = None
    epochs: int | None = None
    batch_size: int | None = None
    val_share: float | None = None
    allow_outside: bool = False

    @classmethod
    def of(cls, settings: Mapping[str, Any]) -> "Given":
        """What is given among settings by their dotted names, as values or as the text of options.

        A value of another type is left to whoever checks the settings, and whose error names it.
        """
        found: dict[str, Any] = {}
        for name, setting, kind in (
            ("model", "model", str),
            ("pretrained", "pretrained", str),
            ("img_size", "input.img_size", int),
            ("epochs", "epochs", int),
            ("batch_size", "batch_size", int),
            ("val_share", "val_share", float),
        ):
            value = settings.get(setting)
            with suppress(TypeError, ValueError):
                if value in (None, "null"):
                    continue
                parsed: Any = kind(value)
                if kind is str or parsed > 0:
                    found[name] = parsed
        return cls(**found, allow_outside=settings.get("allow_outside") in (True, "true"))


def suit(config: ClassificationConfig, data: str, given: Given) -> ClassificationConfig:
    """The configuration with what suits the images of a folder or table; as it is for other data."""
    found = look_at(data, given.allow_outside)
    if found is None:
        return config
    train = train_images(found, given.val_share)
    model, img_size = (given.model, None) if given.model else choose_model(found, train, given)
    batch_size = given.batch_size or _choose_batch_size(train)
    epochs = given.epochs or _choose_epochs(train, bool(given.pretrained))
    steps = epochs * max(1, train // batch_size)
    return replace(
        config,
        model=model,
        epochs=epochs,
        batch_size=batch_size,
        # The average is over a twentieth of the run: in a short one it would still hold the first weights.
        ema_decay=round(min(0.9999, max(0.5, 1 - 20 / steps)), 4),
        input=InputConfig(img_size=given.img_size or img_size),
        augment=_choose_augment(found, train),
        optimizer=OptimizerConfig(lr=_choose_lr(batch_size, bool(given.pretrained))),
    )


def look_at(data: str, allow_outside: bool = False) -> "Survey | None":
    """What a folder or table holds; None for data by name and for formats that take long to open."""
    # A set on the hub would be asked for by its name.
    if data in DATASETS or not os.path.exists(data):
        return None
    from v2m.data.classes.survey import survey

    return survey(data, allow_outside=allow_outside)


def train_images(found: "Survey", val_share: float | None) -> int:
    """About how many images there are to train on."""
    share = 0.0 if found.has_val else (VAL_SHARE if val_share is None else val_share)
    return max(2, round(found.images * (1 - share))) if 0 <= share < 1 else found.images


def choose_model(found: "Survey", train: int, given: Given) -> tuple[str, int | None]:
    """A model that two cores can train, with its image size; None for the model's own."""
    if given.pretrained == TIMM:
        return WITH_WEIGHTS, None
    if given.pretrained and (name := _model_of(given.pretrained)):
        return name, None
    side = given.img_size or min(found.width, found.height)
    if side <= THUMBNAIL:
        return "v2m_nano", 16 if side <= 16 else 32
    if side <= SMALL:
        return "v2m_micro", 64
    if train < MANY:
        return "v2m_lite_nano", 128 if train < FEW else 160
    return "v2m_lite_tiny", 224


def _model_of(folder: str) -> str | None:
    """The model of a run, which its weights fit; None where there is none."""
    from v2m.tasks.model_folder import read_folder

    try:
        return read_folder(Path(folder)).saved.architecture
    except (DataError, OSError):  # told of when the weights are loaded
        return None


def _choose_batch_size(train: int) -> int:
    """At most 32, and at least four steps in an epoch."""
    size = 32
    while size > 4 and size * 4 > train:
        size //= 2
    return size


def _choose_epochs(train: int, has_weights: bool) -> int:
    """More passes where images are fewer: 80 over 32 images, 30 over 800, 12 over 20,000 and more."""
    epochs = min(80, max(12, round(226 * train**-0.3)))
    return max(8, epochs // 3) if has_weights else epochs


def _choose_lr(batch_size: int, has_weights: bool) -> float:
    """By the square root of the batch, as suits Adam."""
    most = 5e-4 if has_weights else 2e-3
    return float(f"{most * (batch_size / 32) ** 0.5:.2g}")


def _choose_augment(found: "Survey", train: int) -> AugmentConfig:
    if min(found.width, found.height) <= THUMBNAIL:
        return AugmentConfig(scale=(0.7, 1.0))
    if train < FEW:
        return AugmentConfig(scale=(0.35, 1.0), color_jitter=0.3)
    return AugmentConfig(scale=(0.25, 1.0))


def describe(config: TrainConfig) -> list[str]:
    """A line for each of what was chosen for a folder of images and why, and what to expect."""
    if not isinstance(config, ClassificationConfig):
        return []
    found = look_at(config.data, config.allow_outside)
    if found is None:
        return []
    from v2m.data.classes.survey import MOST_COUNTED

    train = train_images(found, config.val_share)
    is_photo = min(found.width, found.height) > SMALL
    more = "more than " if found.images == MOST_COUNTED else ""
    what = (
        f"{'photos' if is_photo else 'images'} of {found.width}x{found.height} pixels (median), "
        f"{more}{found.images:,} images, {found.classes:,} classes"
    )
    name, size = choose_model(found, train, Given(pretrained=config.pretrained))
    is_chosen = (config.model, config.input.img_size) == (name, size)
    at = f" at {size}x{size} pixels" if size else ""
    steps = max(1, train // min(config.batch_size, train))
    lines = [
        f"model {name}{at}: {what}" if is_chosen else what,
        f"epochs {config.epochs} of {steps:,} steps, batch_size {config.batch_size}, learning rate "
        f"{config.optimizer.lr:g}: {more or 'about '}{train:,} images to train on",
    ]
    if is_photo and train < FEW and not config.pretrained:
        lines += _warn_of_few(found, train)
    return lines


def _warn_of_few(found: "Survey", train: int) -> list[str]:
    is_hopeless = train < FEW_OF_A_CLASS * found.classes
    expected = (
        f"little more than what colours tell (guessing is right in {1 / found.classes:.0%})"
        if is_hopeless
        else "much less than from trained weights"
    )
    return [
        f"{train:,} photos are few to train a model from nothing: expect {expected}",
        f"to start from trained weights: --model {WITH_WEIGHTS} --pretrained {TIMM} (timm's, downloaded), "
        "or --pretrained RUN for a run of yours",
    ]
