"""Semantic segmentation: a class for every pixel."""

from v2m.tasks.segmentation.task import Segmentation

__all__ = ["Segmentation"]
