"""What the machine gives to this process."""

import os


def cores() -> int:
    """CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def is_main() -> bool:
    """Whether this process is the one that writes and prints. It is known before others are joined."""
    return os.environ.get("RANK", "0") == "0"
