"""Processes that read images: how they are started, and who stops them."""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from v2m.system.open_files import end_without_files


@contextmanager
def starting_workers() -> Iterator[None]:
    """Keep Ctrl-C from processes that are being started: it would end them with a traceback each."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    # They inherit what is blocked, until ``leave_stopping``.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def leave_stopping(worker: int) -> None:
    """Leave it to the process that started this one: Ctrl-C and schedulers signal all processes at once."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    end_without_files()
    # A scheduler's SIGTERM is not for workers, but PyTorch ends them by one: they tell by its sender.
    if hasattr(signal, "sigwaitinfo"):  # not on macOS
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        threading.Thread(target=_end_when_told, daemon=True).start()


def _end_when_told() -> None:
    """End by a SIGTERM of the process that started this one, and no other."""
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != os.getppid():
        pass
    os._exit(0)
