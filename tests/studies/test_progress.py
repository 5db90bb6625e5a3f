import io

import pytest
from rich.console import Console

from v2m.engine import progress
from v2m.studies.progress import StudyProgress


@pytest.fixture
def every_line(monkeypatch):
    monkeypatch.setattr(progress, "SECONDS_BETWEEN_LINES", -1.0)


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
