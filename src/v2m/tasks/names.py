"""Names with one meaning everywhere: those of the tasks, and of the files of a run and of a saved model."""

from pathlib import Path

CLASSIFICATION, DETECTION, SEGMENTATION = "classification", "detection", "segmentation"
"""The tasks. Classification is also that of folders that name no task, such as timm's."""
WEIGHTS, CONFIG = "model.safetensors", "config.json"
"""The files of a saved model."""
SAVING = ".saving-"
"""How the name of a folder begins in which both are written before they are renamed into place."""
RUN_CONFIG, BEST = "train.yaml", "best"
"""The settings of a run, and the folder in it with its best weights."""
TIMM = "timm"
"""Given in place of a folder, this means the weights that timm has of a model."""
HUB, LOCAL_DIR = "hf-hub:", "local-dir:"
"""What timm puts before the name of a repository, and of a folder."""


def run_of(model: Path) -> Path:
    """The folder of the run that a model is of: the model's own, or the one whose ``best`` it is."""
    above = model.absolute().parent if model.parent == Path() else model.parent
    # A run may be called so too: then it has settings of its own.
    is_best = model.name == BEST and (above / RUN_CONFIG).is_file() and not (model / RUN_CONFIG).is_file()
    return above if is_best else model
