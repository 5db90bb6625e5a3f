"""The exact two-dimensional selective scan of a feature map."""

from v2m.ops.scan_2d.interface import selective_scan_2d

__all__ = ["selective_scan_2d"]
