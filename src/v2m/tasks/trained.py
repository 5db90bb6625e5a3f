"""One way to name a trained model: a folder, a repository of the Hugging Face Hub, or a name of timm's."""

import os
from pathlib import Path
from typing import Any

import timm
import torch
from huggingface_hub import hf_hub_download

from v2m.models import MODELS
from v2m.system.errors import DataError, short
from v2m.system.names import nearest
from v2m.system.network import DOWNLOAD, bounded
from v2m.tasks import load_model
from v2m.tasks.classification.config import InputConfig
from v2m.tasks.classification.data import resolve_image_spec
from v2m.tasks.classification.evaluation import ClassificationEvaluator
from v2m.tasks.classification.model import build_classifier
from v2m.tasks.names import CLASSIFICATION, CONFIG, HUB, LOCAL_DIR, TIMM, WEIGHTS
from v2m.tasks.saved_model import SavedModel
from v2m.tasks.timm_models import has_timm_weights, imagenet_classes, model_defaults


def load(source: str | os.PathLike[str], device: str | torch.device | None = None) -> SavedModel[Any]:
    """Load a trained model, whatever its task is.

    Args:
        source: A run folder, its ``best``, or another folder in timm's hub format; or the weights file in
            one. ``hf-hub:OWNER/NAME`` for such a folder on the Hugging Face Hub, with ``@REVISION`` for one
            version of it. ``timm/NAME``, or the name alone, for a model of timm with its weights.
        device: Where to; by default it stays on the CPU.

    Returns:
        The model in evaluation mode, with its transforms, classes, and ``predict``.

    Raises:
        DataError: there is no model, or its weights do not fit.
        ValueError: there is no such task or model of timm, or a package that it needs is missing.
    """
    folder = find_folder(source)
    saved = _load_timm(str(source).removeprefix(f"{TIMM}/")) if folder is None else load_model(folder)
    return saved if device is None else saved.to(device)


def find_folder(source: str | os.PathLike[str]) -> Path | None:
    """The folder that ``load`` reads for a source, downloaded if need be; None where it is a name of timm's.

    Raises:
        DataError: it is neither, or the download failed.
    """
    if not isinstance(source, str):
        return Path(source)
    if source.startswith(HUB):
        return _download(source.removeprefix(HUB))
    path = Path(source.removeprefix(LOCAL_DIR))
    kind, _, name = source.partition("/")
    if kind == TIMM and name:
        return None
    if path.exists() or source.startswith(LOCAL_DIR):
        return path
    if timm.is_model(source):
        return None
    if "/" in source:  # it is meant to be a folder, which reading it will say
        return path
    names = nearest(source, [*MODELS, *timm.list_models(pretrained=True)], most=2)
    hint = f"; the nearest names of models are {', '.join(names)}" if names else ""
    raise DataError(f"{source}: neither a folder with a model nor a model of timm{hint}")


def _download(repository: str) -> Path:
    """The folder, in the Hub's own cache, with the model of a repository."""
    name, _, revision = repository.partition("@")
    try:
        with bounded(DOWNLOAD):
            paths = [hf_hub_download(name, file, revision=revision or None) for file in (CONFIG, WEIGHTS)]
    except Exception as error:  # a download raises nearly anything
        raise DataError(f"{HUB}{repository}: the model cannot be had ({short(error)})") from None
    return Path(paths[0]).parent


def _load_timm(name: str) -> SavedModel[ClassificationEvaluator]:
    """A classifier with the weights that timm has of it."""
    cfg = model_defaults(name)
    if not has_timm_weights(name):
        raise DataError(
            f"{name}: there are no trained weights of this model; train it (v2m.train, or v2m train "
            f"--model {name}) and load the run folder, or build it untrained by v2m.create_model"
        )
    count = cfg["num_classes"]
    if not count:
        raise DataError(f"{name}: it has no classes, it gives features; see v2m embed")
    spec = resolve_image_spec(InputConfig(), "", cfg)
    model = build_classifier(name, {}, count, spec, TIMM).eval()
    classes = imagenet_classes(count) or [str(i) for i in range(count)]
    return SavedModel(model, ClassificationEvaluator(classes, spec), CLASSIFICATION, name)
