"""What a detector minimises: torchvision's losses."""

import torch
from timm.task import TrainingTask
from torch import Tensor

from v2m.tasks.detection.model import Detector


class DetectionObjective(TrainingTask):
    """The sum of a detector's losses, of proposals and of heads.

    Each loss is a mean over the samples of one part of a step, so all parts of a step weigh the same.

    Args:
        model: The detector.
    """

    def __init__(self, model: Detector) -> None:
        super().__init__(verbose=False)
        self.trainable_module = model

    def forward(self, input: list[Tensor], target: list[dict[str, Tensor]]) -> dict[str, Tensor]:
        """The sum as ``loss``, and the single losses as ``output``."""
        losses = self.trainable_module(input, target)
        loss = torch.stack(list(losses.values())).sum()
        return dict(loss=loss, output=losses)
