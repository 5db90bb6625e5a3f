"""Metrics to TensorBoard, Weights & Biases or trackio, by accelerate's trackers."""

import json
import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import Any

from accelerate import PartialState
from accelerate.tracking import GeneralTracker, TensorBoardTracker, TrackioTracker, WandBTracker
from rich.console import Console

from v2m.engine.progress import print_line
from v2m.system.errors import first_line
from v2m.system.files import read_file, refuse_link, replace_file
from v2m.system.names import safe_name

PROJECT = "v2m"


def check_trackers(names: Sequence[str]) -> None:
    """Check that the libraries are installed, without importing them.

    Raises:
        ValueError: one is not.
    """
    # A folder of that name, as wandb leaves one in the working directory, has a specification but no origin.
    missing = [name for name in names if getattr(find_spec(name), "origin", None) is None]
    if missing:
        raise ValueError(
            f"trackers: {', '.join(missing)} not installed, try: pip install 'v2m[{','.join(missing)}]'"
        )


class Trackers:
    """Sends metrics to trackers, from the main process; one that fails is left, with a warning.

    A run that goes on continues its curves: TensorBoard in the same folder, Weights & Biases by an id that is
    kept in it, trackio by the name of the folder. Of steps that are done again, TensorBoard shows the second
    time, Weights & Biases the first, trackio both.

    Args:
        names: Any of tensorboard, wandb, trackio.
        run: The run folder, which is there; its name is the name of the run.
        config: Settings by name, as ``v2m.tasks.config.settings`` gives them.
        step: Steps of the run that are done; more than 0 where it goes on.
        console: Where warnings go.
    """

    def __init__(
        self, names: Sequence[str], run: Path, config: Mapping[str, Any], step: int, console: Console
    ) -> None:
        self._console = console
        self._trackers: dict[str, GeneralTracker] = {}
        if not PartialState().is_main_process:
            return
        for name in names:
            with self._left_if_failing(name):
                tracker = STARTS[name](run, config, step)
                tracker.start()
                if name == "tensorboard" and not step:  # it would list the settings once for every start
                    tracker.store_init_configuration(_plain(config))
                self._trackers[name] = tracker

    def __enter__(self) -> "Trackers":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.finish()

    def log(self, values: Mapping[str, float], step: int) -> None:
        """Send values by name; ``step`` counts the steps of the whole run that are done."""
        for name, tracker in list(self._trackers.items()):
            with self._left_if_failing(name):
                tracker.log(dict(values), step=step)

    def finish(self) -> None:
        """Send what was not sent yet, and end the run there."""
        for name in list(self._trackers):
            with self._left_if_failing(name):
                self._trackers.pop(name).finish()

    @contextmanager
    def _left_if_failing(self, name: str) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # whatever it is, training is worth more
            self._trackers.pop(name, None)
            reason = first_line(error)
            print_line(self._console, f"warning: {name} fails ({reason}); training goes on without it")


def _tensorboard(run: Path, config: Mapping[str, Any], step: int) -> GeneralTracker:
    folder = run / "tensorboard"
    for path in (folder, *folder.rglob("*")):
        refuse_link(path, "delete it")
    return TensorBoardTracker("tensorboard", run, purge_step=step + 1 if step else None)


def _wandb(run: Path, config: Mapping[str, Any], step: int) -> GeneralTracker:
    kept = run / "wandb" / "run-id"
    for path in (kept.parent, kept):
        refuse_link(path, "delete it")
    if not kept.is_file():
        kept.parent.mkdir(exist_ok=True)
        new = secrets.token_hex(8)  # names of folders come twice, ids must not
        replace_file(kept, lambda partial: partial.write_text(new))
    return WandBTracker(
        PROJECT,
        name=safe_name(run.name),
        dir=run,
        id=read_file(kept, most=100).decode(),
        resume="allow",
        config=dict(config),
        allow_val_change=True,
    )


def _trackio(run: Path, config: Mapping[str, Any], step: int) -> GeneralTracker:
    return TrackioTracker(
        PROJECT,
        name=safe_name(run.name),
        config=dict(config),
        resume="allow" if step else "never",
        embed=False,
    )


STARTS: dict[str, Callable[[Path, Mapping[str, Any], int], GeneralTracker]] = dict(
    tensorboard=_tensorboard, wandb=_wandb, trackio=_trackio
)


def _plain(config: Mapping[str, Any]) -> dict[str, Any]:
    """The settings with lists and dictionaries as JSON, since TensorBoard takes numbers and texts only."""
    return {
        name: json.dumps(value) if isinstance(value, list | dict) else value for name, value in config.items()
    }
