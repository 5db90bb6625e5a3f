"""Training runs side by side, each in a process of its own, as ``v2m train`` would do them."""

import os
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path

from rich.console import Console

import v2m
from v2m.engine.stopping import Interrupted, stop_requests
from v2m.studies.progress import StudyProgress
from v2m.studies.run import StudyRun
from v2m.system.machine import cores

SECONDS_BETWEEN_LOOKS = 0.5
"""How often running processes are looked at."""
ANSWER = "stopping, the runs are being saved; Ctrl-C again stops at once"
V2M = """
import sys
if not getattr(sys.flags, "safe_path", False): del sys.path[0]
sys.path.append(sys.argv.pop(1))
from v2m.cli import main
sys.exit(main())
"""
"""A program that is ``v2m``, of the package in the folder that its first argument names.

Python looks for modules in the current folder first. It is taken off the list: what lies there must not be
imported instead.
"""


def train_runs(
    runs: Sequence[StudyRun], jobs: int, console: Console, on_done: Callable[[StudyRun], None]
) -> dict[str, str]:
    """Train the runs that are not done yet, in this order. A run that was stopped goes on where it was.

    Args:
        runs: All runs of the study, which have been checked.
        jobs: Runs at a time; they share the cores.
        console: Where progress goes.
        on_done: Called with each run that is finished by this call.

    Returns:
        For each run that failed, by name: the last line that it left on standard error.

    Raises:
        Interrupted: Ctrl-C or SIGTERM came. Runs that were running are saved.
    """
    waiting = deque(run for run in runs if not run.is_done)
    running: list[_Process] = []
    done = len(runs) - len(waiting)
    failures: dict[str, str] = {}
    # Processes with a thread for each core of the machine would hinder one another.
    threads = max(1, cores() // jobs)

    def finish(process: _Process) -> None:
        # How a run went is read from its folder, not from the exit code: a run that ended just as it was
        # stopped is done, and one that saved itself when it was stopped has not failed.
        nonlocal done
        running.remove(process)
        run = process.run
        if run.is_done:
            on_done(run)
            done += 1
            progress.line(f"{done}/{len(runs)} done  {_scores(run)}")
        elif not stop_requested():
            failures[run.name] = process.last_line()
            progress.line(f"{run.name}  failed: {failures[run.name]}")
            return  # the log stays, for whoever asks why
        process.errors.unlink()

    epochs = sum(run.config.epochs for run in runs)
    epochs_before = sum(run.epochs_done for run in runs)
    with (
        stop_requests(ANSWER) as stop_requested,
        StudyProgress(console, len(runs), epochs, epochs_before) as progress,
    ):
        try:
            while (waiting or running) and not stop_requested():
                while waiting and len(running) < jobs:
                    running.append(_Process(waiting.popleft(), threads))
                # How far they are is read from their folders: a run knows nothing of its study.
                progress.update(
                    done,
                    [process.status for process in running],
                    sum(run.epochs_done for run in runs),
                )
                time.sleep(SECONDS_BETWEEN_LOOKS)
                for process in [p for p in running if p.popen.poll() is not None]:
                    finish(process)
            # Stopped: every run saves where it is. One may have finished just now, and counts.
            _interrupt(running)
            for process in [*running]:
                finish(process)
        finally:
            # After a second Ctrl-C or an error here, nothing may go on training unseen.
            _interrupt(running)
    if stop_requested():
        raise Interrupted(f"stopped with {done} of {len(runs)} runs done")
    return failures


class _Process:
    """``v2m train`` of one run.

    It has a session of its own: the terminal's Ctrl-C does not reach it, so it is interrupted once, by us.
    """

    def __init__(self, run: StudyRun, threads: int) -> None:
        self.run = run
        self.errors = run.folder.path.with_name(f"{run.name}.log")
        self.errors.parent.mkdir(parents=True, exist_ok=True)
        # A link in its place must not make us write elsewhere: it goes, and "x" follows none.
        self.errors.unlink(missing_ok=True)
        # The package that runs here, which need not be the one that is installed.
        package = str(Path(v2m.__path__[0]).parent)
        with open(self.errors, "x") as errors:
            self.popen = subprocess.Popen(
                [sys.executable, "-c", V2M, package, "train", *run.arguments, "--resume", "auto"],
                env={"OMP_NUM_THREADS": str(threads)} | os.environ,  # what the user has set wins
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=errors,
                start_new_session=True,
            )

    @property
    def status(self) -> str:
        """The name of its run, and how many of its epochs are done."""
        return f"{self.run.name} {self.run.epochs_done}/{self.run.config.epochs}"

    def last_line(self) -> str:
        """The last line on standard error, or the exit code if there is none."""
        lines = [line for line in self.errors.read_text().splitlines() if line.strip()]
        return lines[-1].removeprefix("v2m: error: ") if lines else f"exit code {self.popen.returncode}"


def _scores(run: StudyRun) -> str:
    """The name of a finished run and what its task measures, after the last epoch."""
    row = run.folder.read_metrics()[-1]
    return "  ".join([run.name, *(f"{name} {row[f'val_{key}']:.2%}" for key, name in run.metrics)])


def _interrupt(processes: Sequence[_Process]) -> None:
    """Interrupt processes and wait for their end. They save at the first interrupt, and not at the second."""
    # All are asked before the first is waited for, so that they save at the same time.
    for process in processes:
        process.popen.send_signal(signal.SIGINT)
    for process in processes:
        process.popen.wait()
