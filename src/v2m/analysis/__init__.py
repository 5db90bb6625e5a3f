"""Pictures of runs and models."""

from v2m.analysis.plots import (
    choose_images,
    plot_confusion_matrix,
    plot_learning_curve,
    plot_predictions,
    plot_study,
)

__all__ = [
    "choose_images",
    "plot_confusion_matrix",
    "plot_learning_curve",
    "plot_predictions",
    "plot_study",
]
