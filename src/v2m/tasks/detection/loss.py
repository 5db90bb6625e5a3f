"""What a detector minimises: torchvision's losses."""

import torch
from timm.task import TrainingTask
from torch import Tensor

from v2m.tasks.detection.model import Detector


class DetectionObjective(TrainingTask):
    """The sum of a detector's losses, of proposals and of heads.

    Each is a mean over what was sampled from the images of a part, so that parts of a step count alike.

    Args:
        model: The detector.
    """

    def __init__(self, model: Detector) -> None:
        super().__init__(verbose=False)
        self.trainable_module = model

    def forward(self, input: list[Tensor], target: list[dict[str, Tensor]]) -> dict[str, Tensor]:
        """The loss, and the losses that it is the sum of."""
        losses = self.trainable_module(input, target)
        loss = torch.stack(list(losses.values())).sum()
        return dict(loss=loss, output=losses)
