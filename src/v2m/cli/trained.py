"""The trained model that a command is given."""

from pathlib import Path

from rich.console import Console

from v2m.cli.output import note_if_unchecked
from v2m.data import DATASETS
from v2m.system.errors import DataError
from v2m.tasks.model_folder import ModelFolder, read_folder


def open_folder(model: str, errors: Console) -> ModelFolder:
    """The folder of a trained model.

    Args:
        model: The folder, or the weights file in it.
        errors: Where a note goes if the model cannot be compared with what was saved.

    Raises:
        DataError: there is no model.
    """
    if model in DATASETS and not Path(model).exists():
        raise DataError(f"{model} is a dataset, expected the folder of a model; did you mean --data {model}?")
    folder = read_folder(Path(model))
    note_if_unchecked(errors, model, folder)
    return folder
