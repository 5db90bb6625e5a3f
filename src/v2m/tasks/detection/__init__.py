"""Detection: boxes around objects and their classes, and with a Mask R-CNN their masks."""

from v2m.tasks.detection.task import Detection

__all__ = ["Detection"]
