"""Pictures of runs and models."""

from v2m.analysis.plots import (
    choose_images,
    plot_classes,
    plot_confusion_matrix,
    plot_learning_curve,
    plot_predictions,
    plot_probes,
    plot_refinement,
    plot_study,
)
from v2m.analysis.refinement import RefinementRow, measure_refinement

__all__ = [
    "RefinementRow",
    "choose_images",
    "measure_refinement",
    "plot_classes",
    "plot_confusion_matrix",
    "plot_learning_curve",
    "plot_predictions",
    "plot_probes",
    "plot_refinement",
    "plot_study",
]
