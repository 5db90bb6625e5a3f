"""Image classification: one label per image."""

from v2m.tasks.classification.task import Classification

__all__ = ["Classification"]
