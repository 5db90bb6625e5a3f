"""The selective scan along one axis of a feature map."""

from v2m.ops.scan.interface import Axis, selective_scan

__all__ = ["Axis", "selective_scan"]
