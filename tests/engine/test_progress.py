import io

import pytest
from rich.console import Console

from v2m.engine import progress
from v2m.engine.progress import StudyProgress, TrainProgress, track


@pytest.fixture
def every_line(monkeypatch):
    monkeypatch.setattr(progress, "SECONDS_BETWEEN_LINES", -1.0)


def test_training_writes_plain_lines_to_a_file(every_line):
    console = Console(file=io.StringIO(), width=40)
    with TrainProgress(console, epochs=12, steps=50, done=100) as shown:
        shown.step(epoch=3, step=10, images_per_s=1234.5, loss=0.5, accuracy=0.25)
        row = dict(epoch=3, train_loss=1, train_top1=0.5, val_loss=2, val_top1=0.75, images_per_s=99)
        shown.epoch(row)
    first, second = console.file.getvalue().splitlines()
    assert first.startswith("epoch 3/12  step 10/50  1,234 images/s  loss 0.500  acc 25.0%  ")
    assert first.endswith(" s left")
    assert "val loss 2.000  accuracy 75.00%" in second
    assert "\x1b" not in first + second


def test_training_shows_a_bar_in_a_terminal():
    console = Console(file=io.StringIO(), width=80, force_terminal=True)
    with TrainProgress(console, epochs=12, steps=50) as shown:
        shown.step(epoch=3, step=10, images_per_s=1234.5, loss=0.5, accuracy=0.25)
        shown._bar.refresh()
    text = console.file.getvalue()
    assert "epoch 3/12" in text
    assert "1,234 images/s  loss 0.500  acc 25.0%" in text
    assert "left" in text


@pytest.mark.parametrize("is_terminal", [True, False])
def test_a_study_shows_what_is_done_and_running(every_line, is_terminal):
    console = Console(file=io.StringIO(), width=100, force_terminal=is_terminal)
    with StudyProgress(console, runs=4, epochs=20, done=5) as shown:
        shown.update(1, ["a-seed0 0/5"], epochs=5)
        shown.update(2, ["a-seed1 3/5", "b-seed1 2/5"], epochs=15)
        shown._bar.refresh()
        shown.line("a line that stays")
    text = console.file.getvalue()
    assert "runs 2/4  running a-seed1 3/5, b-seed1 2/5  0:00:00 left" in text
    assert "a line that stays\n" in text
    if not is_terminal:
        assert text.splitlines()[0] == "runs 1/4  running a-seed0 0/5"


def test_the_time_left_of_a_study_shrinks_between_epochs(every_line, monkeypatch):
    console = Console(file=io.StringIO(), width=100)
    clock = iter([0, 10, 40, 60, 75, 300])
    monkeypatch.setattr(progress.time, "monotonic", lambda: now)
    now = next(clock)
    with StudyProgress(console, runs=4, epochs=8, done=2) as shown:
        for epochs in (2, 4, 4, 5, 5):
            now = next(clock)
            shown.update(1, ["a-seed0"], epochs)
    left = [line.partition("a-seed0")[2].strip() for line in console.file.getvalue().splitlines()]
    assert left == ["", "0:01:20 left", "0:01:00 left", "0:01:15 left", "0:00:00 left"]


@pytest.mark.parametrize("is_terminal", [True, False])
def test_tracking_yields_every_item(every_line, is_terminal):
    console = Console(file=io.StringIO(), force_terminal=is_terminal)
    assert list(track(iter("abc"), "reading", 3, console)) == ["a", "b", "c"]
    assert "reading" in console.file.getvalue()
    if not is_terminal:
        assert console.file.getvalue().splitlines()[0].startswith("reading 1/3  ")
