"""What is shown of work that takes long: a live bar in a terminal, plain lines elsewhere."""

import math
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from types import TracebackType
from typing import TypeVar

from rich.console import Console, RenderableType
from rich.live import Live
from rich.markup import escape
from rich.progress import Progress
from rich.progress import track as rich_track
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from v2m.engine.run_folder import Metrics
from v2m.system.errors import shown
from v2m.system.machine import cores
from v2m.tasks.task import Metric

SECONDS_BETWEEN_LINES = 30.0
FACT_WIDTH = 8

LEAST_BAR, MOST_BAR = 4, 14
FIRST_LEFT_OUT = ("memory", "lr", "waiting", "accuracy", "rate")
"""Fields that a bar leaves out where the terminal is narrow, in this order."""

MOST_WAITING = 0.3
"""Share of the time above which waiting is worth a warning: training could take 0.7 times as long."""
WARNING_STEPS, WARNING_SECONDS = 20, 10.0
"""Steps and seconds of an epoch before the warning: workers take a few seconds to start."""

T = TypeVar("T")
P = TypeVar("P", bound="LiveProgress")


def print_line(console: Console, text: str) -> None:
    """Print one line with names in it, which may be anything."""
    console.print(shown(text), markup=False, emoji=False, highlight=False, soft_wrap=True)


def print_fact(console: Console, name: str, text: str) -> None:
    """Print one line of what is known of a run: what it is about, and the fact."""
    print_line(console, f"{name:<{FACT_WIDTH}}{text}")


def track(items: Iterable[T], what: str, total: int, console: Console) -> Iterator[T]:
    """Yield the items and show how many of ``total`` are done, and the time left."""
    if console.is_terminal:
        yield from rich_track(items, escape(shown(what)), total, console=console, transient=True)
        return
    started = last = time.monotonic()
    for done, item in enumerate(items, 1):
        yield item
        now = time.monotonic()
        if now - last > SECONDS_BETWEEN_LINES:
            last = now
            left = (now - started) / done * (total - done)
            print_line(console, f"{what} {done}/{total}  {left:.0f} s left")


@dataclass(frozen=True)
class StepStatus:
    """Where a training run is after a step.

    Attributes:
        epoch: The epoch, from 1.
        step: Steps of the epoch that are done, skipped ones too.
        images_per_s: Images per second of this epoch, over all processes.
        loss: Mean training loss of this epoch so far.
        accuracy: Share of this epoch so far that was right, where the task counts that.
        lr: Learning rate of the step.
        memory_mb: Memory, as ``v2m.engine.device.memory_mb`` measures it.
        data_wait: Share of the time of this epoch in which the model waited for images.
        skipped: Steps of this epoch that were skipped.
    """

    epoch: int
    step: int
    images_per_s: float
    loss: float
    accuracy: float | None
    lr: float
    memory_mb: float
    data_wait: float
    skipped: int = 0


class LiveProgress:
    """Counts what is done of some work, and knows the time left. Entering it starts what is live.

    Args:
        console: Where to write.
        total: All that is to do.
        done: What was done before this process started.
    """

    _live: Live | Progress  # in a terminal

    def __init__(self, console: Console, total: int, done: int) -> None:
        self._console, self._total = console, total
        self._first = self._done = done

    def __enter__(self: P) -> P:
        self._start = self._last_advance = self._last_line = time.monotonic()
        if self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.stop()

    def line(self, text: str) -> None:
        """Write a line that stays."""
        self._last_line = time.monotonic()
        print_line(self._console, text)

    def _advance(self, done: int) -> None:
        self._done, self._last_advance = done, time.monotonic()

    def _is_line_due(self) -> bool:
        is_late = time.monotonic() - self._last_line > SECONDS_BETWEEN_LINES
        return is_late and not self._console.is_terminal

    def _time_left(self) -> str | None:
        """The time left by the mean pace of this process, evaluations included. It counts down in between."""
        if self._done <= self._first:
            return None
        pace = (self._last_advance - self._start) / (self._done - self._first)
        left = pace * (self._total - self._done) - (time.monotonic() - self._last_advance)
        return str(timedelta(seconds=round(max(0.0, left))))


class TrainProgress(LiveProgress):
    """Shows how a model trains, and warns once where it waits for images.

    Args:
        console: Where to write.
        epochs: Epochs of the whole run.
        steps: Steps of an epoch.
        done: Steps done before this process started.
        workers: Processes that read images for this one.
        processes: Processes that train on this machine.
        train_metric: The metric that is shown of training.
        val_metrics: The metrics that are shown of an evaluation.
    """

    def __init__(
        self,
        console: Console,
        epochs: int,
        steps: int,
        done: int = 0,
        workers: int = 0,
        processes: int = 1,
        train_metric: Metric | None = None,
        val_metrics: Sequence[Metric] = (),
    ) -> None:
        super().__init__(console, epochs * steps, done)
        self._epochs, self._steps = epochs, steps
        self._workers, self._cores = workers, max(1, cores() // processes)
        self._metrics = dict(train=[train_metric] if train_metric else [], val=list(val_metrics))
        self._status: StepStatus | None = None
        # Counted from the first step that was told of an epoch: a resumed run starts in the midst of one.
        self._epoch, self._epoch_steps, self._epoch_start = 0, 0, 0.0
        self._has_warned = False
        self._live = Live(get_renderable=self._row, console=console, transient=True)

    def step(self, status: StepStatus) -> None:
        """Show where training is."""
        self._status = status
        self._advance((status.epoch - 1) * self._steps + status.step)
        if status.epoch != self._epoch:
            self._epoch, self._epoch_steps, self._epoch_start = status.epoch, 0, self._last_advance
        self._epoch_steps += 1
        if self._is_line_due():
            epoch, *others = self._fields().values()
            self.line("  ".join([epoch, f"step {status.step}/{self._steps}", *others]))
        self._warn_of_waiting(status)

    def epoch(self, row: Metrics) -> None:
        """Show the metrics of an epoch, with steps that were skipped and unreadable images."""
        line = (
            f"epoch {row['epoch']:>{len(str(self._epochs))}}/{self._epochs}"
            f"  {self._part(row, 'train')}  |  {self._part(row, 'val')}"
            f"  |  {row['images_per_s']:,.{0 if row['images_per_s'] >= 10 else 1}f} images/s"
        )
        lr = f"  |  lr {row['lr']:.2g}"  # the least of these, which a narrow terminal goes without
        if not self._console.is_terminal or len(line + lr) <= self._console.width:
            line += lr
        for key, what in (("skipped", "step{s} skipped"), ("unreadable", "image{s} unreadable")):
            if number := row.get(key):
                line += f"  |  {number:.0f} {what.format(s='' if number == 1 else 's')}"
        self.line(line)

    def _part(self, row: Metrics, part: str) -> str:
        """What is shown of a split: its loss, where there is one, and its metrics."""
        loss = [f"loss {row[f'{part}_loss']:.3f}"] if f"{part}_loss" in row else []
        named = ((f"{part}_{key}", label) for key, label in self._metrics[part])
        shares = [f"{label} {row[name]:6.2%}" for name, label in named if name in row]
        return f"{part} " + "  ".join(loss + shares)

    def _fields(self) -> dict[str, str]:
        """Everything that is shown, by name and in order."""
        epoch = f"epoch {self._epoch or min(self._epochs, 1 + self._first // self._steps)}/{self._epochs}"
        left = f"{self._time_left() or '-:--:--'} left"
        if self._status is None:
            return dict(epoch=epoch, left=left)
        status = self._status
        memory = status.memory_mb
        fields = dict(
            epoch=epoch,
            rate=f"{status.images_per_s:,.0f} images/s",
            loss=f"loss {status.loss:.3f}",
        )
        if status.accuracy is not None:
            fields |= dict(accuracy=f"acc {status.accuracy:.1%}")
        fields |= dict(
            lr=f"lr {status.lr:.2g}",
            memory=f"{memory / 1000:.1f} GB" if memory >= 1000 else f"{memory:.0f} MB",
            waiting=f"waiting {status.data_wait:.0%}",
        )
        if status.skipped:
            fields |= dict(skipped=f"{status.skipped} skipped")
        return fields | dict(left=left)

    def _row(self) -> RenderableType:
        """The live bar, with the fields that the terminal has room for."""
        fields = self._fields()
        # At first all fields are tried, then ever fewer, until the bar has room.
        for name in ("", *FIRST_LEFT_OUT):
            fields.pop(name, None)
            epoch, *others = fields.values()
            text = "  ".join(others)
            room = self._console.width - len(epoch) - len(text) - 2
            if room >= LEAST_BAR:
                break
        if room < LEAST_BAR:
            return Text(f"{epoch} {text}", no_wrap=True, overflow="crop")
        row = Table.grid(padding=(0, 1))
        row.add_row(epoch, ProgressBar(self._total, self._done, width=min(room, MOST_BAR)), Text(text))
        return row

    def _warn_of_waiting(self, status: StepStatus) -> None:
        if (
            self._has_warned
            or status.data_wait <= MOST_WAITING
            or self._epoch_steps < WARNING_STEPS
            or self._last_advance - self._epoch_start < WARNING_SECONDS
        ):
            return
        self._has_warned = True
        if self._workers < self._cores:
            advice = f"try --workers {enough_workers(self._workers, status.data_wait, self._cores)}"
        else:
            advice = (
                "there are as many workers as cores: store smaller images, use a faster disk, or augment less"
            )
        self.line(f"the model waits for images {status.data_wait:.0%} of the time; {advice}")


def enough_workers(workers: int, data_wait: float, cores: int) -> int:
    """How many workers would read as fast as the model trains; at most one for each core.

    Args:
        workers: How many there are.
        data_wait: Share of the time in which the model waits for them.
        cores: Cores of this process.
    """
    # Without workers, reading takes the time that the model waits. Workers that are waited for read all the
    # time, and do a step's images in a step.
    model = max(1 - data_wait, 1e-3)
    needed = data_wait / model if workers == 0 else workers / model
    return min(cores, max(workers + 1, math.ceil(needed)))
