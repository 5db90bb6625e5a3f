"""How segmentation models are evaluated, and applied to image files."""

from collections.abc import Sequence
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor, nn

from v2m.data.loading import Images, collate_lists
from v2m.data.masks.dataset import MaskedImages
from v2m.tasks.evaluation import EvaluationOptions, Evaluator
from v2m.tasks.predictions import SegmentationPrediction
from v2m.tasks.segmentation.config import InferenceConfig, InputConfig, SegmentationOptions
from v2m.tasks.segmentation.data import open_val_data, to_tensor
from v2m.tasks.segmentation.metrics import SegmentationResults
from v2m.tasks.segmentation.model import Segmenter, iter_predictions


class SegmentationEvaluator(Evaluator):
    """How models for semantic segmentation are evaluated.

    Args:
        classes: Names of the classes.
        input: The images and masks, resolved.
        inference: How images are segmented.
    """

    collate = staticmethod(collate_lists)

    def __init__(self, classes: list[str], input: InputConfig, inference: InferenceConfig) -> None:
        self.classes, self.input, self.inference = classes, input, inference

    def open_data(self, source: str, data_dir: Path, *, allow_outside: bool = False) -> MaskedImages:
        """Validation images of their own sizes, and their labels. No file names images elsewhere."""
        return open_val_data(source, data_dir, self.input, self.classes)

    def with_options(self, options: EvaluationOptions) -> "SegmentationEvaluator":
        """This evaluator with other settings of inference."""
        assert isinstance(options, SegmentationOptions)
        return SegmentationEvaluator(self.classes, self.input, options.applied(self.inference))

    def results(self, data: Images) -> SegmentationResults:
        """Where pixels are counted."""
        return SegmentationResults(self.classes, self.inference, self.input.ignore_index, len(data))

    def prepare(self, image: Image.Image) -> Image.Image:
        """The image in colour, to be drawn on; it keeps its size."""
        return image.convert("RGB")

    def transform(self, image: Image.Image) -> Tensor:
        """The image in colour, normalised, in its own size."""
        return to_tensor(image.convert("RGB"), self.input)

    def predict(self, model: nn.Module, images: Sequence[Image.Image], device: torch.device) -> list[Tensor]:
        """The labels ``[H, W]`` of each image."""
        assert isinstance(model, Segmenter)
        tensors = [to_tensor(image, self.input).to(device) for image in images]
        # Labels instead of scores at once: the scores of all images may not fit into memory.
        labels = {i: scores.argmax(0).cpu() for i, scores in iter_predictions(model, tensors, self.inference)}
        return [labels[i] for i in range(len(images))]

    def result(self, prediction: Tensor) -> SegmentationPrediction:
        """The labels, with the names of the classes."""
        return SegmentationPrediction(prediction.numpy(), self.classes)
