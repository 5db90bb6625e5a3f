"""What a study shows while its runs are at work."""

from collections.abc import Sequence

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from v2m.engine.progress import LiveProgress
from v2m.system.errors import shown


class StudyProgress(LiveProgress):
    """Shows which runs of a study are done and which are running, and the time left.

    Args:
        console: Where to write.
        runs: Number of runs in the study.
        epochs: Epochs of all runs together.
        done: Epochs that were done before this process started.
    """

    def __init__(self, console: Console, runs: int, epochs: int, done: int) -> None:
        super().__init__(console, epochs, done)
        self._live = self._bar = Progress(
            BarColumn(bar_width=14),
            TextColumn("{task.description}", markup=False),
            console=console,
            disable=not console.is_terminal,
            transient=True,
        )
        self._runs = runs
        self._task = self._bar.add_task("", total=epochs, completed=done)

    def update(self, runs: int, running: Sequence[str], epochs: int) -> None:
        """Show a new state.

        Args:
            runs: Number of runs that are done.
            running: What is running, and how far it is.
            epochs: Epochs that are done in all runs together.
        """
        # The time left is estimated from epochs, since runs are of different lengths.
        if epochs > self._done:
            self._advance(epochs)
        status = f"runs {runs}/{self._runs}  running {', '.join(running) or '-'}"
        if left := self._time_left():
            status += f"  {left} left"
        self._bar.update(self._task, completed=epochs, description=shown(status))
        # Where no bar can be drawn, as in a log, a line now and then does.
        if self._is_line_due():
            self.line(status)
