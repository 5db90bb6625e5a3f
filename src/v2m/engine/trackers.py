"""Trackers that metrics are sent to: TensorBoard, Weights & Biases and trackio, by accelerate."""

import json
import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

from accelerate import PartialState
from accelerate.tracking import GeneralTracker, TensorBoardTracker, TrackioTracker, WandBTracker
from rich.console import Console

from v2m.engine.progress import print_line
from v2m.system.errors import first_line
from v2m.system.extras import how_to_install, missing
from v2m.system.files import read_file, refuse_link, replace_file
from v2m.system.names import safe_name

PROJECT = "v2m"


def check_trackers(names: Sequence[str]) -> None:
    """Check that the libraries are installed, without importing them.

    Raises:
        ValueError: one is not.
    """
    if absent := missing(names):
        raise ValueError(f"trackers: {', '.join(absent)} not installed: {how_to_install(*absent)}")


class Trackers:
    """Sends metrics to trackers, from the main process. A tracker that fails is dropped, with a warning.

    A resumed run continues its curves: TensorBoard in the same folder, Weights & Biases by an id that is kept
    in the run folder, trackio by the name of that folder. Of steps that are done twice, TensorBoard shows
    the second time, Weights & Biases the first, and trackio both.

    Args:
        names: Any of tensorboard, wandb, trackio.
        run: The run folder, which exists. Its name is the name of the run.
        config: Settings by name, as ``v2m.tasks.config.settings`` gives them.
        step: Steps of the run that are done; more than 0 in a resumed run.
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
            with self._dropped_if_failing(name):
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
        """Send values by name. ``step`` is how many steps of the whole run are done."""
        for name, tracker in list(self._trackers.items()):
            with self._dropped_if_failing(name):
                tracker.log(dict(values), step=step)

    def finish(self) -> None:
        """Send what was not sent yet, and end the run in each tracker."""
        for name in list(self._trackers):
            with self._dropped_if_failing(name):
                self._trackers.pop(name).finish()

    @contextmanager
    def _dropped_if_failing(self, name: str) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # whatever it is, training is worth more
            self._trackers.pop(name, None)
            reason = first_line(error)
            print_line(self._console, f"warning: {name} fails ({reason}); training goes on without it")


# Trackers write into the run folder by themselves, so links in it are refused before.


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
"""How each tracker is made, from the run folder, the settings and the steps that are done."""


def _plain(config: Mapping[str, Any]) -> dict[str, Any]:
    """The settings with lists and dictionaries as JSON: TensorBoard takes only numbers and texts."""
    return {
        name: json.dumps(value) if isinstance(value, list | dict) else value for name, value in config.items()
    }
