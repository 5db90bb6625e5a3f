"""What the machine gives to this process."""

import os
from contextlib import suppress
from pathlib import Path

CGROUPS = Path("/sys/fs/cgroup")
OWN_CGROUPS = Path("/proc/self/cgroup")


def allowed_cores() -> int:
    """CPU cores that this process may run on, of which a container may get less time than they have."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def cores() -> int:
    """CPU cores that this process may use: those it may run on, or those of its quota (docker --cpus)."""
    return max(1, int(min([allowed_cores(), *_quotas()])))


def _quotas() -> list[float]:
    """The limits of CPU time of all control groups that this process is in, in cores."""
    found = []
    with suppress(OSError):
        for line in OWN_CGROUPS.read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            if not controllers:
                folder, read = CGROUPS, _quota_of_v2
            elif "cpu" in controllers.split(","):
                folder, read = CGROUPS / "cpu", _quota_of_v1
            else:
                continue
            # A container sees its own group as the topmost one, whatever it is called outside.
            inner = folder / path.lstrip("/")
            for group in (inner, *inner.parents):
                if group.is_relative_to(folder):
                    with suppress(OSError, ValueError):
                        found.append(read(group))
    return [quota for quota in found if quota > 0]


def _quota_of_v2(group: Path) -> float:
    quota, period = (group / "cpu.max").read_text().split()
    return float(quota) / float(period)  # "max" is no number


def _quota_of_v1(group: Path) -> float:
    quota, period = (float((group / f"cpu.cfs_{name}_us").read_text()) for name in ("quota", "period"))
    return quota / period  # negative where there is no limit
