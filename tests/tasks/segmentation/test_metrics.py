"""Scores against torchmetrics' own, over any division into batches and processes."""

from contextlib import nullcontext

import pytest
import torch
from torchmetrics.classification import MulticlassAccuracy, MulticlassJaccardIndex

from tests.tasks.segmentation.conftest import tiny_model
from v2m.data.loading import Batch
from v2m.system.errors import DataError
from v2m.tasks.segmentation.config import InferenceConfig
from v2m.tasks.segmentation.metrics import SHOWN_IMAGES, SegmentationResults, score

CPU = torch.device("cpu")


def confusion_of(predicted, target, classes):
    labelled = target != 255
    pairs = target[labelled] * classes + predicted[labelled]
    return pairs.bincount(minlength=classes**2).reshape(classes, classes)


@pytest.mark.parametrize("nowhere", [(), (3,), (0, 4)])
def test_is_torchmetrics(nowhere):
    present = [i for i in range(5) if i not in nowhere]
    predicted, target = (torch.tensor(present)[torch.randint(len(present), (2, 8, 9))] for _ in range(2))
    target[target == 2] = 1  # a class that is predicted, but has no pixel
    target[0, :3] = 255
    scores = score(confusion_of(predicted, target, 5), 12.0, 2, list("abcde"))
    miou = MulticlassJaccardIndex(5, ignore_index=255)(predicted, target)
    assert scores.miou == pytest.approx(miou.item(), abs=1e-6)
    accuracy = MulticlassAccuracy(5, ignore_index=255, average="micro")(predicted, target)
    assert scores.pixel_accuracy == pytest.approx(accuracy.item(), abs=1e-6)
    each = MulticlassJaccardIndex(5, ignore_index=255, average="none")(predicted, target)
    for i, row in enumerate(scores.classes):
        assert row.pixels == (target == i).sum()
        assert row.iou == (None if i in nowhere else pytest.approx(each[i].item(), abs=1e-6))
        assert (row.accuracy is None) == (row.pixels == 0)
    assert scores.loss == pytest.approx(12.0 / (target != 255).sum().item())
    assert list(scores.metrics) == ["loss", "miou", "pixel_accuracy", "class_accuracy"]


def test_no_labelled_pixel():
    with pytest.raises(DataError, match="none of 3 images to validate on has a labelled pixel"):
        score(torch.zeros(2, 2, dtype=torch.long), 0.0, 3, ["a", "b"])


def batches(count, size):
    generator = torch.Generator().manual_seed(1)
    items = []
    for number in range(count):
        sides = ((32, 40), (24, 33), (32, 40))[number % 3]
        labels = torch.randint(0, 3, sides, generator=generator)
        labels[:, : number % 4] = 255
        items.append((torch.randn(3, *sides, generator=generator), labels, number))
    return [
        Batch(
            *map(list, zip(*[item[:2] for item in part], strict=True)),
            torch.tensor([i for *_, i in part]),
            [],
        )
        for part in (items[start : start + size] for start in range(0, count, size))
    ]


def test_does_not_depend_on_the_division():
    model = tiny_model().eval()
    results = [SegmentationResults(["a", "b", "c"], InferenceConfig(), 255, 7) for _ in range(3)]
    for batch in batches(7, 7):
        results[0].add(model, batch, CPU, nullcontext)
    for number, batch in enumerate(batches(7, 2)):
        results[1 + number % 2].add(model, batch, CPU, nullcontext)
    whole, *parts = [part.state() for part in results]
    results[0].merge([whole])
    results[1].merge(parts)
    expected, found = results[0].scores(), results[1].scores()
    assert torch.equal(found.confusion, expected.confusion)
    assert found.metrics == pytest.approx(expected.metrics)
    assert found.images == 7
    assert list(results[1].shown) == list(range(7))
    assert all(torch.equal(results[1].shown[i], results[0].shown[i]) for i in range(7))


def test_keeps_a_few_images():
    results = SegmentationResults(["a", "b", "c"], InferenceConfig(), 255, 30)
    for batch in batches(30, 8):
        results.add(tiny_model().eval(), batch, CPU, nullcontext)
    assert {labels.dtype for labels in results.shown.values()} == {torch.uint8}
    results.merge([results.state(), results.state()])
    assert results.images == 60
    assert list(results.shown) == [i * 30 // SHOWN_IMAGES for i in range(SHOWN_IMAGES)]
