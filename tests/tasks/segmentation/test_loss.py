"""The loss of labelled pixels."""

import torch
import torch.nn.functional as F

from tests.tasks.segmentation.conftest import tiny_model
from v2m.tasks.segmentation.config import LossConfig
from v2m.tasks.segmentation.loss import SegmentationObjective


class Fixed(torch.nn.Module):
    """Logits that are parameters."""

    def __init__(self, auxiliary=False):
        super().__init__()
        self.logits = torch.nn.Parameter(torch.randn(2, 3, 4, 5))
        self.auxiliary = torch.nn.Parameter(torch.randn(2, 3, 4, 5)) if auxiliary else None

    def forward(self, images):
        return self.logits, self.auxiliary


def labels():
    values = torch.randint(0, 3, (2, 4, 5))
    values[0, :2] = 255
    return values


def test_is_the_mean_over_labelled_pixels():
    model, target = Fixed(auxiliary=True), labels()
    result = SegmentationObjective(model, LossConfig(0.4, 0.1), 255)(torch.zeros(2, 3, 4, 5), target)
    first, second = (
        F.cross_entropy(part, target, ignore_index=255, label_smoothing=0.1)
        for part in (model.logits, model.auxiliary)
    )
    torch.testing.assert_close(result["loss"], first + 0.4 * second)
    assert result["output"] is model.logits


def test_without_auxiliary_head():
    model, target = Fixed(), labels()
    result = SegmentationObjective(model, LossConfig(0.0), 255)(torch.zeros(2, 3, 4, 5), target)
    torch.testing.assert_close(result["loss"], F.cross_entropy(model.logits, target, ignore_index=255))


def test_no_labelled_pixel():
    model = tiny_model("upernet")
    objective = SegmentationObjective(model, LossConfig(), 255)
    loss = objective(torch.randn(2, 3, 32, 32), torch.full((2, 32, 32), 255))["loss"]
    loss.backward()
    assert loss.item() == 0
    assert all(p.grad is not None and not p.grad.any() for p in model.parameters())
