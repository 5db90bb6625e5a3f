"""What a process may do while it reads what a stranger sent; what else it does is noted."""

import os
import re
import signal
import sys
from contextlib import contextmanager
from pathlib import Path

from tests.fuzz.mutations import CANARY

SECONDS = 20
"""Time for one case."""
MEGABYTES = 700
"""Memory by which one case may raise the peak of the process."""
STARTS = ("subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.startfile", "pty.spawn")
CONNECTS = ("socket.connect", "socket.getaddrinfo", "urllib.Request")
CHANGES = (
    "os.remove", "os.rename", "os.rmdir", "os.mkdir", "os.link", "os.symlink", "os.truncate", "os.chmod",
    "shutil.rmtree", "shutil.move", "shutil.copyfile",
)  # fmt: skip
STATUS, CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")
WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND


class HangError(BaseException):
    """A case takes too long; no handler of errors may catch it."""


class Guard:
    """Notes what goes beyond a folder, through Python's audit events, which nothing can turn off.

    Args:
        folder: Where a case may write.
        outside: Where it may not even read.

    Attributes:
        notes: What was noted since ``watched`` was entered.
    """

    def __init__(self, folder: Path, outside: Path) -> None:
        self.folder, self.outside = os.path.realpath(folder), os.path.realpath(outside)
        self.notes: list[str] = []
        self._is_watching = False
        sys.addaudithook(self._note)
        signal.signal(signal.SIGALRM, self._end)

    @contextmanager
    def watched(self):
        """Note what the block does, and end it after a time."""
        before = megabytes()
        self.notes, self._is_watching = [], True
        signal.alarm(SECONDS)
        try:
            yield
        except HangError:
            self.notes.append(f"took more than {SECONDS} s")
        finally:
            signal.alarm(0)
            self._is_watching = False
            if (grown := megabytes(peak=True) - before) > MEGABYTES:
                self.notes.append(f"took {grown:,.0f} MB")
            if sys.modules.pop(CANARY, None):
                self.notes.append(f"imported {CANARY}")

    def _end(self, *_) -> None:
        raise HangError

    def _note(self, event, args) -> None:
        if not self._is_watching:
            return
        if event in STARTS or event in CONNECTS:
            self.notes.append(f"{event} {args}")
        elif event == "open" and _is_path(args[0]):
            place = os.path.realpath(os.fsdecode(args[0]))
            if args[2] & WRITES and not self._is_within(place):
                self.notes.append(f"wrote {place}")
            elif place.startswith(self.outside):
                self.notes.append(f"read {place}")
        elif event in CHANGES:
            folders = (os.path.dirname(os.path.abspath(os.fsdecode(a))) for a in args[:2] if _is_path(a))
            if not all(self._is_within(os.path.realpath(folder)) for folder in folders):
                self.notes.append(f"{event} {args}")

    def _is_within(self, place: str) -> bool:
        return place == os.devnull or place == self.folder or place.startswith(self.folder + os.sep)


def _is_path(value: object) -> bool:
    return isinstance(value, str | bytes | os.PathLike)


def megabytes(peak: bool = False) -> float:
    """The memory that this process has, or the most since this was asked for; 0 where nobody tells."""
    if not STATUS.exists():
        return 0.0
    found = re.search(r"VmHWM:\s+(\d+)" if peak else r"VmRSS:\s+(\d+)", STATUS.read_text())
    if not peak:
        CLEAR.write_text("5")  # the peak starts again from what is resident now
    return int(found[1]) / 1024 if found else 0.0
