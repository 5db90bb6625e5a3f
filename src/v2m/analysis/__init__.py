"""Pictures of runs and models."""

from v2m.analysis.plots import choose_images, plot_confusion_matrix, plot_learning_curve, plot_predictions

__all__ = ["choose_images", "plot_confusion_matrix", "plot_learning_curve", "plot_predictions"]
