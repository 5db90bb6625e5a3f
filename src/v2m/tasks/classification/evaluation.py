"""How classifiers are evaluated, and applied to image files."""

import os
from collections.abc import Sequence
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor, nn

from v2m.data import ImageSpec, LabelledImages, eval_transform
from v2m.data.classes.division import SPLIT_FILE, Kept, read_kept
from v2m.data.loading import Images
from v2m.system.errors import DataError
from v2m.system.yaml_files import read_yaml
from v2m.tasks.classification.data import open_val_data
from v2m.tasks.classification.metrics import ClassificationResults
from v2m.tasks.evaluation import Evaluator
from v2m.tasks.names import RUN_CONFIG, run_of
from v2m.tasks.predictions import ClassificationPrediction


class ClassificationEvaluator(Evaluator):
    """How classifiers are evaluated.

    Args:
        classes: Names of the classes.
        spec: The images.
        kept: What the run has kept of how it divided its images; None where it did not divide them.
        folder: The folder of the model, whose run is asked for what it has kept once that is needed; None in
            training.
    """

    def __init__(
        self, classes: list[str], spec: ImageSpec, kept: Kept | None = None, folder: Path | None = None
    ) -> None:
        self.classes, self.spec, self._kept, self._folder = classes, spec, kept, folder
        self._transform = eval_transform(spec)

    def open_data(self, source: str, data_dir: Path, *, allow_outside: bool = False) -> LabelledImages:
        """Validation images, labelled by their place in the classes."""
        run = run_of(self._folder.resolve()) if self._folder else None
        kept = read_kept(run) if run else self._kept
        data = open_val_data(source, data_dir, self.spec, self.classes, kept, allow_outside=allow_outside)
        if data.is_whole and run and not kept and _is_own(run, source):
            data.warnings.append(
                f"{run} was trained on images of {source}, but has no {SPLIT_FILE} any more that says on "
                f"which: all {len(data):,} are scored, and scores are too high"
            )
        return data

    def results(self, data: Images) -> ClassificationResults:
        """Where class scores go."""
        return ClassificationResults(self.classes)

    def prepare(self, image: Image.Image) -> Tensor:
        """The image as the model takes it ``[C, H, W]``."""
        return self._transform(image)

    def transform(self, image: Image.Image) -> Tensor:
        """The same, for a classifier."""
        return self._transform(image)

    def predict(
        self, model: nn.Module, images: Sequence[Tensor], device: torch.device
    ) -> list[Tensor | DataError]:
        """Class probabilities ``[classes]`` of each image."""
        with torch.inference_mode():
            probabilities = model(torch.stack(list(images)).to(device)).float().softmax(-1).cpu()
        unusable = DataError("the model's scores are infinite or NaN, take other weights")
        return [row if row.isfinite().all() else unusable for row in probabilities]

    def result(self, prediction: Tensor) -> ClassificationPrediction:
        """The probabilities by name."""
        values, places = prediction.sort(descending=True, stable=True)
        names = [self.classes[place] for place in places.tolist()]
        probabilities = dict(zip(names, values.tolist(), strict=True))
        return ClassificationPrediction(names[0], probabilities[names[0]], probabilities)


def _is_own(run: Path, source: str) -> bool:
    """Whether the model in a folder was trained on these data, as far as the folder says."""
    try:
        own = read_yaml(run / RUN_CONFIG).get("data")
    except (OSError, ValueError):
        return False
    return isinstance(own, str) and os.path.realpath(own) == os.path.realpath(source)
