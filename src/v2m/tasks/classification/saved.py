"""Trained classifiers in folders: timm's hub format."""

import json
import re
from pathlib import Path

from timm.models import save_for_hf
from torch import nn

from v2m.data import ImageSpec
from v2m.models.former_words import todays_words
from v2m.tasks.classification.evaluation import ClassificationEvaluator
from v2m.tasks.model_folder import ModelFolder, check_task, load_classifier, loading, write_folder
from v2m.tasks.names import CLASSIFICATION, CONFIG
from v2m.tasks.saved_model import SavedModel
from v2m.tasks.timm_models import imagenet_classes

LONGEST_TAG = 64


def save(model: nn.Module, evaluator: ClassificationEvaluator, path: Path, data: str | None = None) -> None:
    """Write weights and configuration in timm's hub format, each file renamed into place when complete.

    transformers gives the number of classes beside ``model_args``, so it is not among them.

    Args:
        model: The classifier.
        evaluator: How it is evaluated.
        path: The folder.
        data: What it was trained on, a folder or a name, for timm's tag; None where that is not known.
    """

    def write(partial: Path) -> None:
        names, images = dict(label_names=evaluator.classes), evaluator.spec.timm_config
        save_for_hf(model, partial, model_config=names, safe_serialization=True, data_config=images)
        config = json.loads((partial / CONFIG).read_text())
        # The tag that comes with the model is of the weights that it started from.
        config["pretrained_cfg"].pop("tag", None)
        if data:
            config["pretrained_cfg"]["tag"] = weights_tag(data)
        del config["model_args"]["num_classes"]
        config["model_args"] = todays_words(config["architecture"], config["model_args"])
        (partial / CONFIG).write_text(json.dumps(config, indent=2) + "\n")

    write_folder(path, write)


def weights_tag(data: str) -> str:
    """What timm writes after the dot of a model's name: the name of the data, in its letters."""
    name = re.sub(r"[^a-z0-9]+", "_", Path(data).name.lower()).strip("_")
    return name[:LONGEST_TAG].rstrip("_") or "data"


def load(folder: ModelFolder) -> SavedModel[ClassificationEvaluator]:
    """The classifier in a folder in hub format: a run, or the output of ``v2m convert``.

    Raises:
        DataError: it is a model for another task, or its weights do not fit.
    """
    check_task(folder, CLASSIFICATION, "a classifier")
    saved, images = folder.saved, folder.saved.images
    channels, height, width = images.input_size
    # timm's own folders name no classes where these are ImageNet's.
    classes = saved.label_names or imagenet_classes(saved.num_classes) or saved.classes
    with loading(folder, file=CONFIG):
        spec = ImageSpec(
            (height, width), channels, images.mean, images.std, images.crop_pct, images.interpolation
        )
    evaluator = ClassificationEvaluator(classes, spec, folder=folder.path)
    return SavedModel(load_classifier(folder), evaluator, CLASSIFICATION, saved.architecture, folder.path)
