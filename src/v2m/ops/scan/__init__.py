"""The selective scan along one axis of a feature map."""

from v2m.ops.scan.arguments import Axis
from v2m.ops.scan.interface import selective_scan

__all__ = ["Axis", "selective_scan"]
