"""Operators: functions of tensors, each one folder with its interface and its implementations."""

from v2m.ops.scan import Axis, selective_scan

__all__ = ["Axis", "selective_scan"]
