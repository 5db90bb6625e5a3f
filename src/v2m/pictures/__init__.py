"""Drawing, of plain columns and arrays: what is drawn is chosen and measured elsewhere."""

from v2m.pictures.classification import plot_confusion_matrix, plot_predictions
from v2m.pictures.comparisons import plot_probes, plot_refinement, plot_study
from v2m.pictures.counts import plot_classes
from v2m.pictures.learning import plot_learning_curve

__all__ = [
    "plot_classes",
    "plot_confusion_matrix",
    "plot_learning_curve",
    "plot_predictions",
    "plot_probes",
    "plot_refinement",
    "plot_study",
]
