"""The training loss: cross-entropy of the labelled pixels, and of an auxiliary head."""

import torch.nn.functional as F
from timm.task import TrainingTask
from torch import Tensor

from v2m.tasks.segmentation.config import LossConfig
from v2m.tasks.segmentation.model import Segmenter


class SegmentationObjective(TrainingTask):
    """What is minimised: called with images and labels, it gives ``loss`` and ``output``.

    Args:
        model: The model to train.
        loss: Weights of the loss.
        ignore_index: Label of pixels that have none.
    """

    def __init__(self, model: Segmenter, loss: LossConfig, ignore_index: int) -> None:
        super().__init__(verbose=False)
        self.trainable_module = model
        self._loss, self._ignore_index = loss, ignore_index

    def forward(self, input: Tensor, target: Tensor) -> dict[str, Tensor]:
        """Mean loss over the labelled pixels of ``[B, H, W]``, 0 where there are none, and class scores."""
        logits, auxiliary = self.trainable_module(input)
        loss = self._cross_entropy(logits, target)
        if auxiliary is not None:
            loss = loss + self._loss.auxiliary * self._cross_entropy(auxiliary, target)
        return dict(loss=loss, output=logits)

    def _cross_entropy(self, logits: Tensor, target: Tensor) -> Tensor:
        total = F.cross_entropy(
            logits.float(),
            target,
            ignore_index=self._ignore_index,
            label_smoothing=self._loss.label_smoothing,
            reduction="sum",
        )
        return total / (target != self._ignore_index).sum().clamp(min=1)
