"""A saved model, of any task, with geometric decay rates in the place of free ones."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from v2m.layers import Decay
from v2m.models.config import HIERARCHICAL, PLAIN
from v2m.models.decay import RateErrors, make_geometric
from v2m.system.errors import DataError
from v2m.tasks.model_folder import ModelFolder, loading, save_state
from v2m.tasks.names import CONFIG
from v2m.tasks.registry import find_task


@dataclass(frozen=True)
class GeometricModel:
    """A model whose decay rates were made geometric.

    Attributes:
        state: Its weights.
        config: The content of its ``config.json``.
        errors: How far its rates are off: of every mixer, then of all together.
    """

    state: dict[str, Tensor]
    config: dict[str, Any]
    errors: list[RateErrors]

    def save(self, path: Path) -> None:
        """Write weights and configuration into a folder."""
        save_state(self.state, self.config, path)


def with_geometric_decay(folder: ModelFolder) -> GeometricModel:
    """The model in a folder, with geometric decay rates.

    Raises:
        DataError: the model cannot be loaded, or is none of this package.
        ValueError: its mixer has no decay rates, or they are geometric already.
    """
    saved = folder.saved
    default = (PLAIN | HIERARCHICAL).get(saved.architecture)
    if default is None:
        raise DataError(f"{folder.path}: a {saved.architecture}, expected a model of this package (v2m list)")
    with loading(folder, file=CONFIG):
        config = default.with_arguments(saved.model_args)
    if config.decay is None:
        raise ValueError(f"decay: {folder.path} has the mixer {config.mixer!r}, which has no such rates")
    if config.decay is Decay.GEOMETRIC:
        raise ValueError(f"decay: {folder.path} has geometric rates already, there is nothing to convert")
    # Loaded as a whole, so that weights which do not fit are found here.
    model = find_task(folder.task).load(folder).model
    state, errors = make_geometric(model.state_dict())
    if not errors:
        raise ValueError(f"decay: {folder.path} has attention in all blocks, there is nothing to convert")
    model_args = saved.model_args | dict(decay=Decay.GEOMETRIC.value)
    return GeometricModel(state, folder.config | dict(model_args=model_args), errors)
