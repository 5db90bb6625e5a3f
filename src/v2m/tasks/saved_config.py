"""The content of ``config.json`` of a saved model, checked before anything is built from it."""

import inspect
from collections import Counter
from dataclasses import dataclass, field, fields, replace
from typing import Any

import timm
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from timm.layers import to_2tuple
from timm.models import build_model_with_cfg

from v2m.models.former_words import todays_words
from v2m.system.files import check_plain
from v2m.tasks.names import CLASSIFICATION
from v2m.tasks.typed import LARGEST, brief, typed

SHA256 = "sha256"
"""The entry of ``config.json`` with the SHA-256 of both files."""
LARGEST_SIDE, LARGEST_RESIZED = 2**12, 2**13
"""Most pixels of a side that a saved model may ask for: of its images, and of those they are cut out of."""
LARGEST_ARGUMENT, LONGEST_ARGUMENT = 2**16, 2**8
MOST = dict(img_size=LARGEST_SIDE, num_classes=LARGEST, sweeps=2**8)
"""The largest values of those arguments of a model whose limit is not ``LARGEST_ARGUMENT``."""

_FACTORY = (timm.create_model, build_model_with_cfg)
NO_ARGUMENTS = {name for function in _FACTORY for name in inspect.signature(function).parameters} | {
    "features_only",
    "feature_cls",
    "out_indices",
    "pruned",
    "device",
    "dtype",
}
"""Names that timm does not pass on to a model. They decide what else is built and which files are read."""


@dataclass(frozen=True)
class Sums:
    """SHA-256 of the saved files.

    Attributes:
        weights: The sum of the weights file.
        settings: The sum of ``config.json``, by ``settings_sha256``.
    """

    weights: str
    settings: str


@dataclass(frozen=True)
class ImageConfig:
    """The images that a model takes, by timm's names and defaults.

    Attributes:
        input_size: Channels, height and width.
        mean: Mean of every channel, of values in 0..1.
        std: Standard deviation of every channel, likewise.
        crop_pct: Share of the shorter side that the evaluation crop keeps.
        interpolation: Resampling filter.
    """

    input_size: tuple[int, int, int] = (3, 224, 224)
    mean: tuple[float, ...] = IMAGENET_DEFAULT_MEAN
    std: tuple[float, ...] = IMAGENET_DEFAULT_STD
    crop_pct: float = 0.875
    interpolation: str = "bicubic"

    def __post_init__(self) -> None:
        channels, *size = self.input_size
        if not all(1 <= side <= LARGEST_SIDE for side in size) or channels < 1:
            expected = f"positive numbers, sides up to {LARGEST_SIDE}"
            raise ValueError(f"input_size is {list(self.input_size)}, expected {expected}")
        for name in ("mean", "std"):
            values = getattr(self, name)
            if (
                len(values) not in (1, channels)
                and values is not type(self).__dataclass_fields__[name].default
            ):
                expected = f"{channels}, one for each channel"
                raise ValueError(f"{name} has {len(values)} numbers, expected {expected}")
            # timm's defaults have three channels; gray images take the mean of these.
            mean = sum(values) / len(values)
            object.__setattr__(self, name, values if len(values) == channels else (mean,) * channels)
        if min(self.std) < 1e-6:
            raise ValueError(f"std is {list(self.std)}, expected positive numbers")
        if not 0 < self.crop_pct <= 2 or max(size) / self.crop_pct > LARGEST_RESIZED:
            raise ValueError(
                f"crop_pct is {self.crop_pct} of {max(size)} pixels, expected a positive share, and "
                f"images of up to {LARGEST_RESIZED} pixels"
            )
        if self.interpolation not in FILTERS:
            raise ValueError(
                f"interpolation is {brief(self.interpolation)}, expected one of {', '.join(FILTERS)}"
            )


FILTERS = ("nearest", "bilinear", "bicubic", "box", "hamming", "lanczos")


@dataclass(frozen=True)
class SavedConfig:
    """What the configurations of all tasks have in common.

    Attributes:
        architecture: timm's name of the model, or of the backbone.
        num_classes: Number of classes.
        pretrained_cfg: timm's settings, among them those of the images.
        model_args: Arguments of the model, in today's words.
        task: What the model is for.
        label_names: Names of the classes.
        backbone: The prefix of the names of the backbone's weights.
        sha256: SHA-256 of the saved files; None for timm's folders, and for those of earlier versions.
    """

    architecture: str
    num_classes: int
    pretrained_cfg: dict[str, Any]
    model_args: dict[str, Any] = field(default_factory=dict)
    task: str = CLASSIFICATION
    label_names: list[str] | None = None
    backbone: str = ""
    sha256: Sums | None = None

    def __post_init__(self) -> None:
        if not timm.is_model(self.architecture):
            raise ValueError(f"architecture is {brief(self.architecture)}, expected a model of timm or v2m")
        if self.num_classes < 0:
            raise ValueError(f"num_classes is {self.num_classes}, expected at least 0")
        check_model_args(self.model_args)
        object.__setattr__(self, "model_args", todays_words(self.architecture, self.model_args))
        for name, value in self.model_args.items():
            _check_numbers(f"model_args.{name}", value, MOST.get(name, LARGEST_ARGUMENT))
        count = self.model_args.get("num_classes", self.num_classes)
        if count != self.num_classes:
            raise ValueError(
                f"model_args.num_classes is {brief(count)}, but num_classes is {self.num_classes}"
            )
        self._check_names()

    def _check_names(self) -> None:
        names = self.label_names
        if not names:
            return
        if len(names) != self.num_classes:
            raise ValueError(
                f"label_names has {len(names):,} names, but the model has {self.num_classes:,} classes"
            )
        name, count = Counter(names).most_common(1)[0]
        if count > 1:
            raise ValueError(f"label_names has {brief(name)} {count} times, expected a name for each class")

    @property
    def images(self) -> ImageConfig:
        """The images that the model takes.

        Raises:
            ValueError: a setting of the images is missing or out of bounds.
        """
        given = {f.name: self.pretrained_cfg.get(f.name) for f in fields(ImageConfig)}
        return typed(ImageConfig, {k: v for k, v in given.items() if v is not None}, "pretrained_cfg")

    @property
    def classes(self) -> list[str]:
        """Names of the classes, or their numbers if the model was saved without names."""
        return self.label_names or [str(i) for i in range(self.num_classes)]


def read_saved_config(config: Any) -> SavedConfig:
    """Check the part of ``config.json`` that all tasks have in common.

    Args:
        config: The whole content, as JSON gives it.

    Raises:
        ValueError: a setting is missing, has the wrong type, or is out of bounds.
    """
    check_plain(config)
    saved = typed(SavedConfig, config, is_open=True)
    # transformers saves other weights, but keeps entries that it does not know, such as the old sums.
    if "transformers_version" in config:
        saved = replace(saved, sha256=None)
    images, cfg = saved.images, saved.pretrained_cfg
    size = saved.model_args.get("img_size")
    if (
        size is not None
        and cfg.get("fixed_input_size")
        and list(to_2tuple(size)) != list(images.input_size[1:])
    ):
        raise ValueError(
            f"pretrained_cfg.input_size is {list(images.input_size)}, "
            f"but model_args.img_size is {brief(size)}"
        )
    return saved


def check_model_args(model_args: dict[str, Any]) -> None:
    """Check that timm passes all arguments on to the model.

    By the others timm would read files, or build something else.

    Raises:
        ValueError: one is no argument of a model.
    """
    for name in model_args:
        if name in NO_ARGUMENTS:
            raise ValueError(
                f"model_args: {brief(name)} is no argument of a model; weights come by --pretrained"
            )


def _check_numbers(name: str, value: Any, most: float) -> None:
    if isinstance(value, dict | list):
        if len(value) > LONGEST_ARGUMENT:
            raise ValueError(f"{name} is {brief(value)}, expected at most {LONGEST_ARGUMENT}")
        for item in value.values() if isinstance(value, dict) else value:
            _check_numbers(name, item, most)
    elif isinstance(value, int | float) and not abs(value) <= most:
        raise ValueError(f"{name} is {brief(value)}, expected a number up to {most:,}")
