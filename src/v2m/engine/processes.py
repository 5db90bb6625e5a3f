"""What is known of processes that work together without joining them, and of one that is lost."""

import os
import re
import time

from v2m.system.errors import first_line

SECONDS_TO_GIVE_WAY = 3.0


class ProcessLostError(OSError):
    """A process that this one needs is gone."""


def world_size() -> int:
    """How many processes work together, which is known before they are joined."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def local_world_size() -> int:
    """How many of the processes run on this machine."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", "1"))


def is_main() -> bool:
    """Whether this process is the one that writes and prints. It is known before the others are joined."""
    return os.environ.get("RANK", "0") == "0"


def give_way() -> None:
    """Let the first process of this machine print an error before this one does.

    If both fail by the same error, torchrun ends this process before it prints the error again.
    """
    if os.environ.get("LOCAL_RANK", "0") != "0":
        time.sleep(SECONDS_TO_GIVE_WAY)


def is_reader_lost(error: Exception) -> bool:
    """Whether this is PyTorch's error for a process that reads images and is gone."""
    text = str(error) if isinstance(error, RuntimeError) else ""
    return bool(re.search("DataLoader worker .*(exited|killed)", text))


def reader_lost(error: Exception) -> ProcessLostError:
    """The same error in words for a user."""
    return ProcessLostError(
        f"a process that reads images was killed, often for want of memory ({first_line(error)}); "
        "try fewer --workers; what was saved is kept (v2m train goes on with --resume)"
    )
