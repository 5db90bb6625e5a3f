"""How detectors are evaluated, and applied to image files."""

from collections.abc import Sequence
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor, nn

from v2m.data.coco.dataset import CocoImages
from v2m.data.loading import Images, collate_lists
from v2m.tasks.detection.data import open_val_data, to_tensor
from v2m.tasks.detection.metrics import DetectionResults
from v2m.tasks.detection.model import Detections, Detector, detect
from v2m.tasks.evaluation import Evaluator
from v2m.tasks.predictions import DetectionPrediction


class DetectionEvaluator(Evaluator):
    """How detectors are evaluated.

    Args:
        classes: Names of the classes.
        category_ids: COCO's ids of the classes, in the training data.
        has_masks: Whether the detector has masks.
        strict: Whether an annotation that cannot be used is an error.
    """

    batch_size = 8  # of 800 pixels and more
    collate = staticmethod(collate_lists)

    def __init__(
        self, classes: list[str], category_ids: list[int], has_masks: bool, strict: bool = False
    ) -> None:
        self.classes, self.category_ids = classes, category_ids
        self.has_masks, self.strict = has_masks, strict

    def open_data(self, source: str, data_dir: Path, *, allow_outside: bool = False) -> CocoImages:
        """Validation images of their own sizes, and masks of their objects."""
        return open_val_data(source, self.has_masks, self.classes, self.strict, allow_outside=allow_outside)

    def results(self, data: Images) -> DetectionResults:
        """Where detections go."""
        assert isinstance(data, CocoImages)
        return DetectionResults(data, self.has_masks)

    def prepare(self, image: Image.Image) -> Image.Image:
        """The image as it is, to be drawn on; the detector resizes it."""
        return image

    def transform(self, image: Image.Image) -> Tensor:
        """The image with values in 0..1, in its own size."""
        return to_tensor(image)

    def predict(
        self, model: nn.Module, images: Sequence[Image.Image], device: torch.device
    ) -> list[Detections]:
        """The objects of each image."""
        assert isinstance(model, Detector)
        return detect(model, [to_tensor(image) for image in images], device)

    def result(self, prediction: Detections) -> DetectionPrediction:
        """The objects, with their classes by name."""
        masks = prediction.masks
        return DetectionPrediction(
            prediction.boxes.numpy(),
            [self.classes[label] for label in prediction.labels.tolist()],
            prediction.scores.numpy(),
            None if masks is None else masks.numpy(),
        )
