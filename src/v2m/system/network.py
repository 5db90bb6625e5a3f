"""Downloads that end, whatever a server does."""

import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn

SILENCE = 30.0
"""Seconds that a server may say nothing."""
LOOK_UP = 300.0
"""Seconds to find out what there is."""
DOWNLOAD = 24 * 3600.0
"""Seconds for data and weights, which may be large."""
AGAIN = 5.0
"""Seconds until a library that took the end for a fault of the network, and tries again, is ended again."""


@contextmanager
def bounded(seconds: float) -> Iterator[None]:
    """End what is done within, where it takes too long, or where Python's sockets wait too long.

    The time is bounded in a process's main thread, and not on Windows.

    Args:
        seconds: The time that it may take.

    Raises:
        TimeoutError: it took longer.
    """
    # A limit for every answer, and one for the whole: a server may send a byte a minute for ever.
    silence = socket.getdefaulttimeout()
    socket.setdefaulttimeout(min(SILENCE, seconds))
    is_timed = hasattr(signal, "setitimer") and threading.current_thread() is threading.main_thread()
    if is_timed:
        before = signal.signal(signal.SIGALRM, _end)
        signal.setitimer(signal.ITIMER_REAL, seconds, AGAIN)
    try:
        yield
    except _OverdueError:  # only here does it become an error that others may catch
        raise TimeoutError(f"the server did not finish within {seconds:,.0f} seconds") from None
    finally:
        socket.setdefaulttimeout(silence)
        if is_timed:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)


class _OverdueError(BaseException):
    """Time is up; libraries that retry after errors let it pass."""


def _end(number: int, frame: FrameType | None) -> NoReturn:
    raise _OverdueError
