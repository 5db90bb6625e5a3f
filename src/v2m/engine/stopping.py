"""Stopping on request, with everything saved."""

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

SECONDS_BETWEEN = 1.0
"""A second Ctrl-C counts only after this time: launchers repeat the one that the terminal has sent to all."""


class Interrupted(Exception):  # noqa: N818 - it is no error
    """Stopped on request, with everything saved."""


@contextmanager
def stop_requests() -> Iterator[Callable[[], bool]]:
    """Turn Ctrl-C and SIGTERM into a request to stop. A second Ctrl-C stops at once.

    Yields:
        A function that says whether this process was asked to stop. The loop asks after every step, so a step
        is never cut in two.
    """
    first: float | None = None

    def request(number: int, frame: Any) -> None:
        nonlocal first
        now = time.monotonic()
        if first is None:
            first = now
        elif number == signal.SIGINT and now - first > SECONDS_BETWEEN:
            raise KeyboardInterrupt

    previous = {number: signal.signal(number, request) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: first is not None
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
