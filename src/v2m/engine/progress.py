"""Progress: a live bar in a terminal, plain lines elsewhere."""

import time
from collections.abc import Iterable, Iterator, Sequence
from datetime import timedelta
from types import TracebackType
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.progress import track as rich_track

from v2m.engine.run import Metrics

SECONDS_BETWEEN_LINES = 30.0

T = TypeVar("T")


def track(items: Iterable[T], what: str, total: int, console: Console) -> Iterator[T]:
    """Yield the items and show how many of ``total`` are done, and the time left."""
    if console.is_terminal:
        yield from rich_track(items, what, total, console=console, transient=True)
        return
    started = last = time.monotonic()
    for done, item in enumerate(items, 1):
        yield item
        now = time.monotonic()
        if now - last > SECONDS_BETWEEN_LINES:
            last = now
            left = (now - started) / done * (total - done)
            console.print(f"{what} {done}/{total}  {left:.0f} s left", highlight=False)


class TrainProgress:
    """Shows rate, time left, loss and accuracy while a model trains.

    Args:
        console: Where to write.
        epochs: Epochs of the whole run.
        steps: Steps of an epoch.
        done: Steps done before this process started.
    """

    def __init__(self, console: Console, epochs: int, steps: int, done: int = 0) -> None:
        self._console, self._epochs, self._steps, self._first = console, epochs, steps, done
        self._bar = Progress(
            TextColumn("epoch {task.fields[epoch]}/{task.fields[epochs]}"),
            BarColumn(bar_width=14),
            TextColumn("{task.fields[status]}"),
            TimeRemainingColumn(),
            TextColumn("left"),
            console=console,
            disable=not console.is_terminal,
            transient=True,
        )
        self._task = self._bar.add_task(
            "", total=epochs * steps, completed=done, epoch=1, epochs=epochs, status=""
        )

    def __enter__(self) -> "TrainProgress":
        self._start = self._last_line = time.monotonic()
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def step(self, epoch: int, step: int, images_per_s: float, loss: float, accuracy: float) -> None:
        """Tell that ``step`` steps of ``epoch`` (both from 1) are done, with the epoch's means so far."""
        status = f"{images_per_s:,.0f} images/s  loss {loss:.3f}  acc {accuracy:.1%}"
        done = (epoch - 1) * self._steps + step
        self._bar.update(self._task, completed=done, epoch=epoch, status=status)
        now = time.monotonic()
        if not self._console.is_terminal and now - self._last_line > SECONDS_BETWEEN_LINES:
            left = (now - self._start) / (done - self._first) * (self._epochs * self._steps - done)
            self._print(
                f"epoch {epoch}/{self._epochs}  step {step}/{self._steps}  {status}  {left:.0f} s left"
            )

    def epoch(self, row: Metrics) -> None:
        """Tell the metrics of a finished epoch."""
        self._print(
            f"epoch {row['epoch']:>{len(str(self._epochs))}}/{self._epochs}"
            f"  train loss {row['train_loss']:.3f}  accuracy {row['train_top1']:6.2%}"
            f"  |  val loss {row['val_loss']:.3f}  accuracy {row['val_top1']:6.2%}"
            f"  |  {row['images_per_s']:,.0f} images/s"
        )

    def _print(self, line: str) -> None:
        self._last_line = time.monotonic()
        self._console.print(line, highlight=False, soft_wrap=True)


class StudyProgress:
    """Shows which runs of a study are done and which are running, and the time left.

    Args:
        console: Where to write.
        runs: Runs of the study.
        epochs: Epochs of all these runs.
        done: Epochs done before this process started.
    """

    def __init__(self, console: Console, runs: int, epochs: int, done: int) -> None:
        self._console, self._runs, self._epochs, self._first = console, runs, epochs, done
        self._done = done
        self._bar = Progress(
            BarColumn(bar_width=14),
            TextColumn("{task.description}"),
            console=console,
            disable=not console.is_terminal,
            transient=True,
        )
        self._task = self._bar.add_task("", total=epochs, completed=done)

    def __enter__(self) -> "StudyProgress":
        self._start = self._last_epoch = self._last_line = time.monotonic()
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def update(self, runs: int, running: Sequence[str], epochs: int) -> None:
        """Tell how many runs are done, what is running, and the epochs done of all runs."""
        now = time.monotonic()
        status = f"runs {runs}/{self._runs}  running {', '.join(running) or '-'}"
        if epochs > self._done:
            self._done, self._last_epoch = epochs, now
        if epochs > self._first:
            pace = (self._last_epoch - self._start) / (epochs - self._first)
            left = max(0.0, pace * (self._epochs - epochs) - (now - self._last_epoch))
            status += f"  {timedelta(seconds=round(left))} left"
        self._bar.update(self._task, completed=epochs, description=status)
        if not self._console.is_terminal and now - self._last_line > SECONDS_BETWEEN_LINES:
            self.line(status)

    def line(self, text: str) -> None:
        """Write a line that stays."""
        self._last_line = time.monotonic()
        self._console.print(text, highlight=False, soft_wrap=True)
