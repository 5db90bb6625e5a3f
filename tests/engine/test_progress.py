import io
import re
from dataclasses import replace
from types import SimpleNamespace

import pytest
from rich.console import Console

from v2m.engine import progress
from v2m.engine.progress import StepStatus, TrainProgress, track
from v2m.tasks.task import Metric


@pytest.fixture
def every_line(monkeypatch):
    monkeypatch.setattr(progress, "SECONDS_BETWEEN_LINES", -1.0)


@pytest.fixture
def clock(monkeypatch):
    """The time of the progress; a live bar draws by the real one."""
    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr(progress, "time", SimpleNamespace(monotonic=lambda: clock.now))
    return clock


STATUS = StepStatus(
    epoch=3,
    step=10,
    images_per_s=1234.5,
    loss=0.5,
    accuracy=0.25,
    lr=0.0038,
    memory_mb=1234.0,
    data_wait=0.02,
)
ROW = dict(
    epoch=3, lr=0.0038, train_loss=1, train_top1=0.5, val_loss=2, val_top1=0.75, images_per_s=99, seconds=1
)

TOP1 = dict(train_metric=Metric("top1", "accuracy"), val_metrics=[Metric("top1", "accuracy")])


def record(width=None, is_terminal=False):
    return Console(file=io.StringIO(), width=width, force_terminal=is_terminal, color_system=None)


def frames(console):
    """What the terminal showed, one text per drawing."""
    shown = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "\n", console.file.getvalue().replace("\r", "\n"))
    return [line.rstrip() for line in shown.split("\n") if line.strip()]


def test_training_writes_plain_lines_to_a_file(every_line):
    console = record(width=40)
    with TrainProgress(console, epochs=12, steps=50, done=100, **TOP1) as shown:
        shown.step(STATUS)
        shown.step(replace(STATUS, step=11, memory_mb=512.4, lr=1e-6, skipped=2))
        shown.epoch(ROW)
    first, second, third = console.file.getvalue().splitlines()
    assert first == (
        "epoch 3/12  step 10/50  1,234 images/s  loss 0.500  acc 25.0%  lr 0.0038  1.2 GB  waiting 2%"
        "  0:00:00 left"
    )
    assert "  lr 1e-06  512 MB  waiting 2%  2 skipped  " in second
    assert third == (
        "epoch  3/12  train loss 1.000  accuracy 50.00%  |  val loss 2.000  accuracy 75.00%"
        "  |  99 images/s  |  lr 0.0038"
    )
    assert "\x1b" not in console.file.getvalue()


def test_plain_lines_come_every_thirty_seconds(clock):
    console = record()
    with TrainProgress(console, epochs=1, steps=100) as shown:
        for step in range(1, 101):
            clock.now += 1
            shown.step(replace(STATUS, epoch=1, step=step))
    lines = console.file.getvalue().splitlines()
    assert [line.partition("step ")[2].split()[0] for line in lines] == ["31/100", "62/100", "93/100"]
    assert [line.partition("waiting 2%  ")[2] for line in lines] == [
        "0:01:09 left",
        "0:00:38 left",
        "0:00:07 left",
    ]


@pytest.mark.parametrize(
    ("width", "expected"),
    [
        (120, "1,234 images/s  loss 0.500  acc 25.0%  lr 0.0038  1.2 GB  waiting 2%  0:12:34 left"),
        (100, "1,234 images/s  loss 0.500  acc 25.0%  lr 0.0038  1.2 GB  waiting 2%  0:12:34 left"),
        (80, "1,234 images/s  loss 0.500  acc 25.0%  waiting 2%  0:12:34 left"),
        (60, "1,234 images/s  loss 0.500  0:12:34 left"),
        (40, "loss 0.500  0:12:34 left"),
    ],
)
def test_training_shows_a_bar_that_fits_the_terminal(clock, width, expected):
    console = record(width, is_terminal=True)
    with TrainProgress(console, epochs=12, steps=50) as shown:
        clock.now += 754 / 490 * 110
        shown.step(STATUS)
        shown._live.refresh()
    last = frames(console)[-1]
    assert last.startswith("epoch 3/12 ")
    assert last[len("epoch 3/12 ")] in "━╸"
    assert last.endswith(f" {expected}")
    assert len(last) <= width


@pytest.mark.parametrize("width", [20, 60, 80, 100, 140])
def test_the_bar_is_one_line_whatever_it_shows(clock, width):
    console = record(width, is_terminal=True)
    large = replace(STATUS, epoch=299, images_per_s=123456, memory_mb=78000, data_wait=1.0, skipped=123)
    with TrainProgress(console, epochs=300, steps=10000) as shown:
        shown._live.refresh()
        clock.now += 1e6
        shown.step(large)
        shown._live.refresh()
    first, *_, last = frames(console)
    assert first.startswith("epoch 1/300"[:width])
    assert last.startswith("epoch 299/300"[:width])
    assert all(len(line) <= width for line in frames(console))
    assert "123 skipped" in last or width < 100


def test_the_time_left_counts_down_between_steps(clock):
    console = record(100, is_terminal=True)
    with TrainProgress(console, epochs=2, steps=10, done=5) as shown:
        shown._live.refresh()
        clock.now += 60
        shown.step(replace(STATUS, epoch=1, step=6))
        shown._live.refresh()
        clock.now += 5
        shown._live.refresh()
        clock.now += 3600
        shown._live.refresh()
    lefts = [line.split()[-2] for line in frames(console)]
    assert list(dict.fromkeys(lefts)) == ["-:--:--", "0:14:00", "0:13:55", "0:00:00"]


def test_epoch_lines_stay_above_the_bar():
    console = record(100, is_terminal=True)
    with TrainProgress(console, epochs=12, steps=50, **TOP1) as shown:
        shown.step(STATUS)
        shown.epoch(ROW | dict(skipped=1, unreadable=3))
    line = next(line for line in frames(console) if line.startswith("epoch  3/12"))
    assert line.endswith("  |  99 images/s  |  1 step skipped  |  3 images unreadable"), (
        "no room for the rate"
    )


ENOUGH = "there are as many workers as cores: store smaller images, use a faster disk, or augment less"


def starve(progress, clock, status, steps, seconds):
    for step in range(1, steps + 1):
        clock.now += seconds / steps
        progress.step(replace(status, step=step))


@pytest.mark.parametrize(
    ("workers", "processes", "advice"),
    [
        (0, 1, "try --workers 2"),
        (1, 1, "try --workers 3"),
        (3, 1, "try --workers 8"),
        (0, 8, "try --workers 1"),
        (8, 1, ENOUGH),
        (2, 8, ENOUGH),
    ],
)
def test_a_model_that_waits_for_images_is_told_of_once(clock, monkeypatch, workers, processes, advice):
    monkeypatch.setattr(progress, "cores", lambda: 8)
    console = record()
    waiting = replace(STATUS, data_wait=0.62)
    with TrainProgress(console, 12, 50, workers=workers, processes=processes) as shown:
        for epoch in (1, 2):
            starve(shown, clock, replace(waiting, epoch=epoch), steps=30, seconds=14)
    assert console.file.getvalue() == f"the model waits for images 62% of the time; {advice}\n"


@pytest.mark.parametrize(
    ("data_wait", "steps", "seconds"),
    [(0.3, 30, 20), (0.9, 19, 20), (0.9, 30, 9)],
    ids=["little", "few", "soon"],
)
def test_waiting_a_little_or_at_the_start_is_normal(clock, data_wait, steps, seconds):
    console = record()
    with TrainProgress(console, 12, 50) as shown:
        for epoch in (1, 2):
            starve(shown, clock, replace(STATUS, epoch=epoch, data_wait=data_wait), steps, seconds)
    assert "waits" not in console.file.getvalue()


@pytest.mark.parametrize("is_terminal", [True, False])
def test_tracking_yields_every_item(every_line, is_terminal):
    console = Console(file=io.StringIO(), force_terminal=is_terminal)
    assert list(track(iter("abc"), "reading", 3, console)) == ["a", "b", "c"]
    assert "reading" in console.file.getvalue()
    if not is_terminal:
        assert console.file.getvalue().splitlines()[0].startswith("reading 1/3  ")
