"""Ctrl-C and SIGTERM: what is answered at once, and what is saved.

Python's own handlers wait for the operator that runs, which may take long. So a thread hears of Ctrl-C too:
it answers at once, and ends a process that does not end by itself.
"""

import multiprocessing
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, NoReturn

from v2m.engine.processes import is_main
from v2m.system.errors import shown

INTERRUPTED = 130
"""The exit code, a shell's for a process that Ctrl-C ended."""
SECONDS_TO_END = 1.5
"""How long a process may take to end by itself."""
SECONDS_BETWEEN, LAUNCHED_SECONDS_BETWEEN = 0.2, 1.0
"""A second Ctrl-C counts only after this time: launchers repeat the one that the terminal has sent to all."""
SHOW_CURSOR = "\x1b[?25h"


class Interrupted(Exception):  # noqa: N818 - it is no error
    """Stopped on request; the message says what was kept, and how to go on."""


class _Request:
    """A wish to stop at the next good moment."""

    def __init__(self, answer: str) -> None:
        self.answer = answer
        self.heard: float | None = None  # by the thread
        self.made: float | None = None  # in the loop that asks

    @staticmethod
    def is_second(first: float, now: float) -> bool:
        """Whether an interrupt is another one than the first, not its echo."""
        return now - first > (LAUNCHED_SECONDS_BETWEEN if "LOCAL_RANK" in os.environ else SECONDS_BETWEEN)


_requests: list[_Request] = []
"""Those that can be made now, the innermost last."""
_last_words: list[Callable[[], str]] = []
"""What there is to say where everything stops at once, the innermost last."""
_has_thread = False
_speaking = threading.Lock()
_has_said_end = False


@contextmanager
def stop_requests(answer: str) -> Iterator[Callable[[], bool]]:
    """Turn Ctrl-C and SIGTERM into a request to stop. A second Ctrl-C stops at once.

    Args:
        answer: What is said at once, such as "stopping after this step".

    Yields:
        A function that says whether this process was asked to stop. The loop asks after every step, so a step
        is never cut in two.
    """
    request = _Request(answer)

    def handle(number: int, frame: Any) -> None:
        now = time.monotonic()
        if request.made is None:
            request.made = now
            if not _has_thread:
                _say(answer)
        elif number == signal.SIGINT and request.is_second(request.made, now):
            raise KeyboardInterrupt

    # The thread knows of the request for longer than the handlers, so that it never takes one for an end.
    _requests.append(request)
    previous = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: request.made is not None
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
        _requests.remove(request)


@contextmanager
def when_stopped(last_words: Callable[[], str]) -> Iterator[None]:
    """Say what was kept, and how to go on, where Ctrl-C stops at once what is done within.

    Args:
        last_words: Gives the line. It may be called in another thread.

    Raises:
        Interrupted: Ctrl-C was pressed.
    """
    _last_words.append(last_words)
    try:
        yield
    except KeyboardInterrupt:
        raise Interrupted(last_words()) from None
    finally:
        _last_words.remove(last_words)


def answer_interrupts() -> None:
    """Answer Ctrl-C within two seconds from now on, whatever is running. For a process that is a command."""
    global _has_thread
    if _has_thread or threading.current_thread() is not threading.main_thread():
        return
    reader, writer = socket.socketpair()
    writer.setblocking(False)
    signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
    # The socket is kept by the thread: nobody else may close it.
    threading.Thread(target=_listen, args=(reader, writer), daemon=True).start()
    _has_thread = True


def end(line: str) -> int:
    """Say the last line of a process that was stopped, and end it where it is a command.

    Libraries may take seconds to clean up, and there is nothing left to save.

    Returns:
        The exit code, of a process that goes on.
    """
    _say_end(line)
    if _has_thread:
        with suppress(OSError, ValueError):  # its reader may be gone
            sys.stdout.flush()
        _end_now()
    return INTERRUPTED


def _say_end(line: str) -> None:
    global _has_said_end
    with _speaking:
        if not _has_said_end:
            _has_said_end = _has_thread  # where there is no thread, the process may be asked to do more
            _say(line)


def _listen(reader: socket.socket, writer: socket.socket) -> None:
    while numbers := reader.recv(64):
        for number in numbers:
            if number in (signal.SIGINT, signal.SIGTERM):
                _hear(number)


def _hear(number: int) -> None:
    request, now = _requests[-1] if _requests else None, time.monotonic()
    if request and request.heard is None:
        request.heard = now
        _say(request.answer)
    elif number == signal.SIGINT and not (request and not request.is_second(request.heard or now, now)):
        words = _last_words[-1] if _last_words else None
        threading.Thread(target=_end_soon, args=(words,), daemon=True).start()


def _end_soon(last_words: Callable[[], str] | None) -> None:
    time.sleep(SECONDS_TO_END)
    _say_end(last_words() if last_words else "stopped")
    _end_now()


def _end_now() -> NoReturn:
    if sys.stderr.isatty():
        sys.stderr.write(SHOW_CURSOR)
    for child in multiprocessing.active_children():  # would keep what reads our output waiting
        child.kill()
    os._exit(INTERRUPTED)


def _say(line: str) -> None:
    if is_main():
        # In a terminal, the line takes the place of a bar and of the letters of Ctrl-C.
        start = "\r\x1b[2K" if sys.stderr.isatty() else ""
        sys.stderr.write(f"{start}v2m: {shown(line)}\n")
        sys.stderr.flush()
