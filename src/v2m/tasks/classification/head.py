"""Models with a classification head: build, save and load in timm's hub format."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import timm
import torch
from timm.models import save_for_hf, split_model_name_tag
from torch import Tensor, nn

from v2m.data import ImageSpec, eval_transform
from v2m.data.images import read_batches
from v2m.models.former_words import todays_words
from v2m.system.errors import DataError, first_line, short, shown
from v2m.system.names import nearest
from v2m.system.network import DOWNLOAD, bounded
from v2m.tasks.hub import (
    CONFIG,
    TIMM,
    Folder,
    has_timm_weights,
    image_args,
    load_classifier,
    model_defaults,
    read_folder,
    write_folder,
)
from v2m.tasks.saved_config import CLASSIFICATION, check_model_args


def build_model(
    name: str,
    model_args: dict[str, Any],
    num_classes: int,
    spec: ImageSpec,
    pretrained: str | None = None,
) -> nn.Module:
    """A timm model for these classes and images: a new one, or one that starts from trained weights.

    As with timm, position embeddings are resized to the images, the first convolution is turned into one for
    their number of channels, and the head is new where the number of classes differs.

    Args:
        name: timm's name of it.
        model_args: Arguments of the model; those that weights were saved with are the defaults.
        num_classes: Classes of the head.
        spec: The images.
        pretrained: A folder in hub format (a run), or the weights file in one; ``timm`` for the weights that
            timm has; None for new ones.

    Raises:
        ValueError: the model takes no such argument or value, or the weights are another model's, do not fit,
            or cannot be had.
    """
    check_model_args(model_args)
    if pretrained is not None:
        return _build_pretrained("pretrained", name, model_args, num_classes, spec, pretrained)
    args = image_args(name, spec.img_size, spec.in_chans) | dict(num_classes=num_classes) | model_args
    try:
        return timm.create_model(name, **args)
    except (TypeError, AssertionError) as error:
        raise ValueError(f"model_args: {first_line(error)}") from None


def load_teacher(teacher: str, classes: list[str], spec: ImageSpec) -> nn.Module:
    """A trained classifier of these classes that takes these images, but for their mean and deviation.

    Those that it was trained with are in its ``pretrained_cfg``.

    Args:
        teacher: timm's name of a model that it has weights of, or a folder in hub format.
        classes: The classes in their order.
        spec: The images that it will be given, resized to if it takes one size only.

    Raises:
        ValueError: there is no such model, or it has other classes or takes other images.
    """
    option = "distill.teacher"
    if timm.is_model(teacher):
        name, source, names, cfg = teacher, TIMM, None, model_defaults(teacher)
        count = cfg.get("num_classes", 0)
    elif Path(teacher).exists():
        saved = _read_classifier(Path(teacher), f"{option}: ").saved
        name, source, names = saved.architecture, teacher, saved.label_names
        count, cfg = saved.num_classes, dict(input_size=saved.images.input_size)
    else:
        names = nearest(teacher, timm.list_models(), most=2)
        hint = f"; the nearest models are {', '.join(names)}" if names else ""
        raise ValueError(f"{option}: {teacher!r} is neither a timm model nor a run folder{hint}")
    if count != len(classes):
        raise ValueError(f"{option}: {teacher} has {count} classes, the data have {len(classes)}")
    if names and names != classes:
        other = next(pair for pair in zip(names, classes, strict=True) if pair[0] != pair[1])
        raise ValueError(f"{option}: {teacher} has a class {other[0]!r} where the data have {other[1]!r}")
    channels = cfg["input_size"][0]
    if channels != spec.in_chans:
        raise ValueError(
            f"{option}: {teacher} takes images of {channels} channels, these have {spec.in_chans}; "
            f"give another teacher, or --input.in_chans {channels}"
        )
    return _build_pretrained(option, name, {}, count, spec, source)


def _build_pretrained(
    option: str, name: str, model_args: dict[str, Any], num_classes: int, spec: ImageSpec, source: str
) -> nn.Module:
    """Build with all trained weights, which shows whether they fit, and only then replace the head."""
    args = image_args(name, spec.img_size, spec.in_chans) | model_args
    if source == TIMM:
        if not has_timm_weights(name):
            raise ValueError(f"{option}: timm has no weights of {name}, expected a run folder")
        try:
            with bounded(DOWNLOAD):
                model = timm.create_model(name, pretrained=True, **args)
        except Exception as error:  # a download raises nearly anything
            raise ValueError(
                f"{option}: timm's weights of {name} cannot be loaded ({short(error)})"
            ) from None
    else:
        folder = _read_classifier(Path(source), f"{option}: ")
        architecture = folder.saved.architecture
        if architecture != split_model_name_tag(name)[0]:
            raise ValueError(
                f"{option}: {source} holds a {architecture}, but the model is {name}; "
                f"give --model {architecture}"
            )
        names = dict(label_names=None, label_descriptions=None)  # not those of the new data
        model = load_classifier(folder, f"{option}: ", pretrained_cfg_overlay=names, **args)
    if model.num_classes != num_classes:
        model.reset_classifier(num_classes)
    return model


def save_model(model: nn.Module, folder: Path, classes: list[str], spec: ImageSpec) -> None:
    """Write weights and configuration in timm's hub format, each file renamed into place when complete.

    transformers gives the number of classes beside ``model_args``, so it is not among them.
    """

    def write(partial: Path) -> None:
        names = dict(label_names=classes)
        save_for_hf(model, partial, model_config=names, safe_serialization=True, data_config=spec.timm_config)
        config = json.loads((partial / CONFIG).read_text())
        del config["model_args"]["num_classes"]
        config["model_args"] = todays_words(config["architecture"], config["model_args"])
        (partial / CONFIG).write_text(json.dumps(config, indent=2) + "\n")

    write_folder(folder, write)


class Classifier(NamedTuple):
    """A model as it was saved: in evaluation mode, with its timm name, class names and images."""

    model: nn.Module
    name: str
    classes: list[str]
    spec: ImageSpec


def load_model(path: Path) -> Classifier:
    """Load a folder in hub format (a run, or the output of ``v2m convert``), or the weights file in one.

    Raises:
        DataError: the folder is missing or is no model, or its weights do not fit.
    """
    folder = _read_classifier(path)
    saved, images = folder.saved, folder.saved.images
    channels, height, width = images.input_size
    try:
        spec = ImageSpec(
            (height, width), channels, images.mean, images.std, images.crop_pct, images.interpolation
        )
    except ValueError as error:
        raise DataError(f"{shown(str(path))}: the model cannot be loaded ({CONFIG}: {error})") from None
    return Classifier(load_classifier(folder).eval(), saved.architecture, saved.classes, spec)


def _read_classifier(path: Path, prefix: str = "") -> Folder:
    folder = read_folder(path, prefix)
    if folder.task != CLASSIFICATION:
        task = shown(folder.task)
        raise DataError(f"{prefix}{shown(str(path))}: a model for {task}, expected a classifier")
    return folder


def classify_files(
    model: nn.Module, spec: ImageSpec, paths: list[Path], device: torch.device, batch_size: int
) -> Iterator[tuple[Path, Tensor | DataError]]:
    """Class probabilities ``[classes]`` of each file, in order; the error for a file that cannot be read."""
    model.to(device).eval()
    for batch in read_batches(paths, batch_size, eval_transform(spec)):
        images = [image for image in batch.values() if isinstance(image, Tensor)]
        if images:
            with torch.inference_mode():
                rows = iter(model(torch.stack(images).to(device)).float().softmax(-1).cpu())
        for path, image in batch.items():
            yield path, _finite(path, next(rows)) if isinstance(image, Tensor) else image


def _finite(path: Path, probabilities: Tensor) -> Tensor | DataError:
    if probabilities.isfinite().all():
        return probabilities
    return DataError(f"{shown(str(path))}: the model's scores are infinite or NaN, take other weights")
