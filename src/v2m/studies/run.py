"""Training runs side by side, each the process that ``v2m train`` would be."""

import os
import shlex
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import reduce
from pathlib import Path
from typing import Any

from rich.console import Console

import v2m
from v2m.engine.progress import StudyProgress
from v2m.engine.resolve import resolve
from v2m.engine.run import RunFolder
from v2m.engine.stopping import Interrupted, stop_requests
from v2m.models.former_words import todays_words
from v2m.system.machine import cores
from v2m.tasks import find_task
from v2m.tasks.config import TrainConfig, settings
from v2m.tasks.task import Metric

SECONDS_BETWEEN_LOOKS = 0.5
V2M = """
import sys
if not getattr(sys.flags, "safe_path", False): del sys.path[0]
sys.path.append(sys.argv.pop(1))
from v2m.cli import main
sys.exit(main())
"""
"""``v2m`` of the folder that is named first, without the current folder, where Python looks first."""
PLACES = ("output", "data_dir", "workers")
"""Settings that may change from one start of a study to the next."""


@dataclass(frozen=True)
class StudyRun:
    """One run of a study.

    Attributes:
        label: The variant that it is a run of.
        config: Its configuration, with a folder in ``output``.
        arguments: What follows ``v2m train`` to get that configuration.
    """

    label: str
    config: TrainConfig
    arguments: Sequence[str]

    @property
    def folder(self) -> RunFolder:
        """Where everything of it is kept."""
        return RunFolder(self.config.output or "")

    @property
    def name(self) -> str:
        """The name of its folder."""
        return self.folder.path.name

    @property
    def metrics(self) -> Sequence[Metric]:
        """What its task measures."""
        return find_task(self.config.task).val_metrics

    @property
    def epochs_done(self) -> int:
        """Epochs that are trained and saved."""
        return len(self.folder.read_metrics())

    @property
    def is_done(self) -> bool:
        """Whether nothing is left to train."""
        return self.epochs_done >= self.config.epochs

    def check(self) -> None:
        """Compare what is asked with what was saved.

        Raises:
            ValueError: they differ, or the configuration cannot be used.
        """
        asked = settings(resolve(self.config))
        if not self.folder.metrics.is_file():
            return
        saved = self.folder.read_config()
        if isinstance(saved.get("model_args"), dict):
            saved["model_args"] = todays_words(str(saved.get("model")), saved["model_args"])
        for name, value in asked.items():
            before = reduce(_part, name.split("."), saved)
            if name not in PLACES and before != value:
                raise ValueError(
                    f"output: {self.folder.path} was trained with {name} {before}, the study has {value}; "
                    "choose another --output, or move that folder away"
                )
        needed = {"seconds", *(f"val_{key}" for key, _ in self.metrics)}
        for number, row in enumerate(self.folder.read_metrics(), 1):
            if missing := needed - row.keys():
                raise ValueError(
                    f"{self.folder.metrics} is damaged in line {number} (no {min(missing)}); "
                    f"v2m train --resume {shlex.quote(str(self.folder.path))} writes it again"
                )


def _part(settings: Any, name: str) -> Any:
    return settings.get(name, {}) if isinstance(settings, dict) else {}


def run_study(
    runs: Sequence[StudyRun], jobs: int, console: Console, on_done: Callable[[StudyRun], None]
) -> dict[str, str]:
    """Train what is not done yet, in this order, and go on where a run was stopped.

    Args:
        runs: The runs, checked.
        jobs: Runs at a time; they share the cores.
        console: Where progress goes.
        on_done: Called after each run that ends here.

    Returns:
        The last line that a run left on standard error, by the name of each run that failed.

    Raises:
        Interrupted: Ctrl-C or SIGTERM; what was running is saved.
    """
    waiting = deque(run for run in runs if not run.is_done)
    running: list[_Process] = []
    done = len(runs) - len(waiting)
    failures: dict[str, str] = {}
    threads = max(1, cores() // jobs)

    def finish(process: _Process) -> None:
        nonlocal done
        running.remove(process)
        run = process.run
        if run.is_done:
            on_done(run)
            done += 1
            row = run.folder.read_metrics()[-1]
            found = (f"{name} {row[f'val_{key}']:.2%}" for key, name in run.metrics)
            progress.line(f"{done}/{len(runs)} done  {'  '.join([run.name, *found])}")
        elif not stop_requested():
            failures[run.name] = process.last_line()
            progress.line(f"{run.name}  failed: {failures[run.name]}")
            return
        process.errors.unlink()

    epochs = sum(run.config.epochs for run in runs)
    epochs_before = sum(run.epochs_done for run in runs)
    with (
        stop_requests() as stop_requested,
        StudyProgress(console, len(runs), epochs, epochs_before) as progress,
    ):
        try:
            while (waiting or running) and not stop_requested():
                while waiting and len(running) < jobs:
                    running.append(_Process(waiting.popleft(), threads))
                progress.update(
                    done,
                    [f"{p.run.name} {p.run.epochs_done}/{p.run.config.epochs}" for p in running],
                    sum(run.epochs_done for run in runs),
                )
                time.sleep(SECONDS_BETWEEN_LOOKS)
                for process in [p for p in running if p.popen.poll() is not None]:
                    finish(process)
            _interrupt(running)
            for process in [*running]:
                finish(process)
        finally:
            _interrupt(running)
    if stop_requested():
        raise Interrupted(f"stopped with {done} of {len(runs)} runs done")
    return failures


class _Process:
    """``v2m train`` in a session of its own: Ctrl-C in the terminal reaches it once, through us."""

    def __init__(self, run: StudyRun, threads: int) -> None:
        self.run = run
        self.errors = run.folder.path.with_name(f"{run.name}.log")
        self.errors.parent.mkdir(parents=True, exist_ok=True)
        arguments = [*run.arguments]
        arguments += ["--resume", "auto"]
        self.errors.unlink(missing_ok=True)  # a link too
        with open(self.errors, "x") as errors:
            self.popen = subprocess.Popen(
                [sys.executable, "-c", V2M, str(Path(v2m.__path__[0]).parent), "train", *arguments],
                env=os.environ | {"OMP_NUM_THREADS": str(threads)},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=errors,
                start_new_session=True,
            )

    def last_line(self) -> str:
        """The last line on standard error, else the exit code."""
        lines = [line for line in self.errors.read_text().splitlines() if line.strip()]
        return lines[-1].removeprefix("v2m: error: ") if lines else f"exit code {self.popen.returncode}"


def _interrupt(processes: Sequence[_Process]) -> None:
    """Let processes save and end, or, if they were asked before, end at once."""
    for process in processes:
        process.popen.send_signal(signal.SIGINT)
    for process in processes:
        process.popen.wait()
