"""Labelled images with their transforms, and the images' specification."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from timm.layers import to_2tuple

from v2m.data import (
    DATASETS,
    AugmentConfig,
    ImageSpec,
    LabelledImages,
    eval_transform,
    open_dataset,
    train_transform,
)
from v2m.data.classes.division import Division, Kept, image_keys
from v2m.tasks.classification.config import InputConfig


def resolve_input(config: InputConfig, data: str, model_cfg: dict[str, Any]) -> InputConfig:
    """Fill what ``config`` leaves open: from a named dataset, else from timm's ``model_cfg``.

    Means and deviations for another number of channels are averaged over the channels.
    """
    known = DATASETS.get(data)
    channels, *size = model_cfg["input_size"]
    in_chans = config.in_chans or (known.in_chans if known else channels)
    return InputConfig(
        img_size=to_2tuple(config.img_size or (known.img_size if known else size)),
        in_chans=in_chans,
        mean=_per_channel(config.mean or (known.mean if known else model_cfg["mean"]), in_chans),
        std=_per_channel(config.std or (known.std if known else model_cfg["std"]), in_chans),
        crop_pct=config.crop_pct or (1.0 if known else model_cfg["crop_pct"]),
    )


def image_spec(config: InputConfig, model_cfg: dict[str, Any]) -> ImageSpec:
    """The images of ``config`` (resolved), resampled as timm's ``model_cfg`` says.

    Raises:
        ValueError: images cannot be read with so many channels.
    """
    values: dict[str, Any] = vars(config)  # none of them is None any more
    size = to_2tuple(config.img_size)
    return ImageSpec(**values | dict(img_size=size, interpolation=model_cfg["interpolation"]))


def resolve_image_spec(config: InputConfig, data: str, model_cfg: dict[str, Any]) -> ImageSpec:
    """``resolve_input`` and ``image_spec`` in one, for a model that is not trained here."""
    return image_spec(resolve_input(config, data, model_cfg), model_cfg)


def _per_channel(values: tuple[float, ...], in_chans: int) -> tuple[float, ...]:
    if len(values) == in_chans:
        return tuple(values)
    return (sum(values) / len(values),) * in_chans


def resolve_augment(config: AugmentConfig, data: str) -> AugmentConfig:
    """Fill what ``config`` leaves open with what suits the dataset."""
    known = DATASETS.get(data)
    scale, hflip = (known.crop_scale, known.hflip) if known else ((0.08, 1.0), 0.5)
    return replace(
        config,
        scale=scale if config.scale is None else config.scale,
        hflip=hflip if config.hflip is None else config.hflip,
    )


def open_train_data(
    data: str,
    data_dir: Path,
    spec: ImageSpec,
    augment: AugmentConfig,
    division: Division,
    *,
    allow_outside: bool = False,
) -> LabelledImages:
    """Training images with augmentation (resolved)."""
    dataset = open_dataset(data, "train", data_dir, allow_outside=allow_outside, division=division)
    dataset.transform = train_transform(spec, augment)
    return dataset


def open_val_data(
    data: str,
    data_dir: Path,
    spec: ImageSpec,
    classes: list[str],
    kept: Kept | None,
    *,
    allow_outside: bool = False,
) -> LabelledImages:
    """Validation images, labelled by their place in ``classes``.

    Of data that are in no split, they are those that the run has ``kept`` for it, or all if it has kept none
    of these data.
    """
    division = kept if kept and kept.is_of(data) else None
    dataset = open_dataset(data, "val", data_dir, classes, allow_outside=allow_outside, division=division)
    if kept and not division:
        known = set(kept.train)
        seen = sum(key in known for key in image_keys(dataset, data))
        if seen:
            dataset.warnings.append(
                f"{data}: {seen:,} of {len(dataset):,} images have the names of images that the model was "
                "trained on; if they are the same, scores are too high"
            )
    dataset.transform = eval_transform(spec)
    return dataset
