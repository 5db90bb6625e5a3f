"""Models with a classification head: timm's, new ones and those that start from trained weights."""

from pathlib import Path
from typing import Any

import timm
from timm.models import split_model_name_tag
from torch import nn

from v2m.data import ImageSpec
from v2m.system.errors import first_line, short
from v2m.system.names import nearest
from v2m.system.network import DOWNLOAD, bounded
from v2m.tasks.classification.config import ClassificationConfig
from v2m.tasks.classification.data import image_spec
from v2m.tasks.model_folder import ModelFolder, check_task, load_classifier, read_folder
from v2m.tasks.names import CLASSIFICATION, TIMM
from v2m.tasks.saved_config import check_model_args
from v2m.tasks.timm_models import has_timm_weights, image_args, model_defaults


def build(config: ClassificationConfig, num_classes: int, pretrained: str | None = None) -> nn.Module:
    """The classifier of a run (resolved); see ``Task.build``."""
    spec = image_spec(config.input, model_defaults(config.model))
    return build_classifier(config.model, config.model_args, num_classes, spec, pretrained)


def build_classifier(
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
    """A trained classifier of these classes that takes these images.

    It expects the mean and deviation of its own training, which are in its ``pretrained_cfg``.

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
        saved = _read_classifier(teacher, option).saved
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
        folder = _read_classifier(source, option)
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


def _read_classifier(source: str, option: str) -> ModelFolder:
    folder = read_folder(Path(source), f"{option}: ")
    check_task(folder, CLASSIFICATION, "a classifier", f"{option}: ")
    return folder
