"""Operators: functions of tensors, each one folder with its interface, its oracle and its registration."""

from v2m.ops.directional import directional_pass
from v2m.ops.dispatch import Implementation, use_implementation
from v2m.ops.scan import Axis, selective_scan
from v2m.ops.scan_2d import selective_scan_2d

__all__ = [
    "Axis",
    "Implementation",
    "directional_pass",
    "selective_scan",
    "selective_scan_2d",
    "use_implementation",
]
