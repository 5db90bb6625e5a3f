"""The trained model that a command is given."""

from pathlib import Path

from rich.console import Console

from v2m.cli.output import note_if_unchecked
from v2m.data import DATASETS
from v2m.engine.run_folder import RunFolder
from v2m.system.errors import DataError
from v2m.tasks.model_folder import ModelFolder, read_folder
from v2m.tasks.names import HUB
from v2m.tasks.trained import find_folder


def open_folder(model: str, errors: Console) -> ModelFolder:
    """The folder of a trained model.

    Args:
        model: The folder, the weights file in it, or its name on the Hugging Face Hub.
        errors: Where a note goes if the model cannot be compared with what was saved.

    Raises:
        DataError: there is no model.
    """
    folder = find_model(model, errors)
    if folder is None:
        raise DataError(f"{model} is a model of timm, expected a run folder or {HUB}OWNER/NAME")
    return folder


def find_model(model: str, errors: Console) -> ModelFolder | None:
    """The folder of a trained model, as by ``open_folder``; None where it is one of timm's."""
    if model in DATASETS and not Path(model).exists():
        raise DataError(f"{model} is a dataset, expected the folder of a model; did you mean --data {model}?")
    path = find_folder(model)
    if path is None:
        return None
    folder = read_folder(path)
    note_if_unchecked(errors, model, folder)
    return folder


def own_data(folder: Path) -> str:
    """What the run of a model was trained on.

    Raises:
        ValueError: the folder does not say.
    """
    run = RunFolder.of_model(folder)
    if not run.config.is_file():
        raise ValueError(f"data: {folder} does not say what it was trained on, name a dataset with --data")
    return run.read_config()["data"]
