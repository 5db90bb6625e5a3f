"""Drawing, of plain columns and arrays."""

from v2m.pictures.plots import (
    choose_images,
    plot_classes,
    plot_confusion_matrix,
    plot_learning_curve,
    plot_predictions,
    plot_probes,
    plot_refinement,
    plot_study,
)

__all__ = [
    "choose_images",
    "plot_classes",
    "plot_confusion_matrix",
    "plot_learning_curve",
    "plot_predictions",
    "plot_probes",
    "plot_refinement",
    "plot_study",
]
