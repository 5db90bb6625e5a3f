"""Detection: boxes around objects and their classes, and with a Mask R-CNN their masks."""
