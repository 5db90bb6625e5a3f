"""The limit of open files, which processes that read images soon reach: each batch is some files to them."""

import errno
import os
import sys
from multiprocessing.queues import Queue
from pathlib import Path
from types import TracebackType
from typing import Any

from v2m.system.errors import shown

LIMIT = (errno.EMFILE, errno.ENFILE)
MOST = 2**16
OWN, PER_WORKER = 32, 16
"""Files of a process that trains, and those for each process that reads images, while it also evaluates."""
OPEN = Path("/proc/self/fd")


def is_limit(error: BaseException) -> bool:
    """Whether an error is that too many files are open; PyTorch has its own for that."""
    return getattr(error, "errno", None) in LIMIT or "Too many open files" in str(error)


def reserve_files(workers: int) -> None:
    """Raise the limit of open files as far as the system lets a process do so.

    Args:
        workers: Processes that will read images.

    Raises:
        ValueError: they need more files.
    """
    if not workers or os.name != "posix":
        return
    import resource

    # Processes inherit the limit, so it is raised before they start.
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = MOST if hard == resource.RLIM_INFINITY else min(hard, MOST)
    if soft != resource.RLIM_INFINITY and soft < most:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
        soft = most
    needed = OWN + PER_WORKER * workers + (len(os.listdir(OPEN)) if OPEN.is_dir() else 0)
    if soft != resource.RLIM_INFINITY and soft < needed:
        raise ValueError(
            f"workers: {workers} processes that read images need some {needed} open files, the limit is "
            f"{soft}; raise it (ulimit -n {max(1024, needed)}), or give fewer --workers"
        )


def end_without_files() -> None:
    """Let this process, which reads images, end where it cannot hand over a batch.

    Python's queues go on without the batch, for which the process that trains would wait for ever.
    """
    Queue._on_queue_feeder_error = staticmethod(_end)  # type: ignore[attr-defined]
    sys.excepthook = _end_of_process


def _end_of_process(kind: type[BaseException], error: BaseException, traceback: TracebackType | None) -> None:
    """End, as Python's hook for errors that nobody caught."""
    _end(error)


def _end(error: BaseException, item: Any = None) -> None:
    """End, and say why; the other process says that this one is gone."""
    print(shown(f"v2m: a process that reads images ends ({error})"), file=sys.stderr, flush=True)
    os._exit(1)
