"""Names of devices, as ``--device`` takes them; which of them are there is known to PyTorch alone."""

import re

from v2m.system.errors import shown
from v2m.system.names import nearest

AUTO = "auto"
EXPECTED = f"expected {AUTO}, cpu, mps, cuda, xpu, or a numbered one such as cuda:1"
NAME = re.compile(r"auto|cpu|mps|(cuda|xpu)(:[0-9]{1,3})?")
MEANT = {name: name for name in (AUTO, "cpu", "cuda", "mps", "xpu")} | dict(gpu="cuda", nvidia="cuda")
"""What a mistyped name may stand for, by what it looks like."""


def check_device_name(name: str) -> None:
    """Check that a name is one of a device, be it there or not.

    Raises:
        ValueError: it is none.
    """
    if NAME.fullmatch(name):
        return
    kind, colon, number = name.lower().partition(":")
    found = [MEANT[word] + (colon + number) for word in nearest(kind, MEANT)]
    hint = f", did you mean {found[0]}?" if found and NAME.fullmatch(found[0]) else ""
    raise ValueError(f"device: {shown(name)!r} is no device{hint or '; ' + EXPECTED}")
