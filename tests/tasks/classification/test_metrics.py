import pytest
import torch
from sklearn.metrics import accuracy_score, confusion_matrix, log_loss, precision_recall_fscore_support

from v2m.tasks.classification.metrics import score


def test_scores_equal_scikit_learns():
    logits, targets = torch.randn(200, 7), torch.randint(0, 7, (200,))
    logits[torch.arange(120), targets[:120]] += 2
    names = [f"class {i}" for i in range(7)]
    scores = score(logits, targets, names)
    predicted = logits.argmax(1)

    assert scores.images == 200
    assert scores.top1 == pytest.approx(accuracy_score(targets, predicted))
    in_five = (logits.topk(5).indices == targets[:, None]).any(1).float().mean()
    assert scores.top5 == pytest.approx(in_five.item())
    assert scores.loss == pytest.approx(log_loss(targets, logits.double().softmax(1)), rel=1e-5)
    assert scores.confusion.tolist() == confusion_matrix(targets, predicted).tolist()
    expected = precision_recall_fscore_support(targets, predicted)
    for i, row in enumerate(scores.classes):
        assert (row.name, row.images) == (names[i], expected[3][i])
        assert (row.precision, row.recall, row.f1) == pytest.approx([expected[k][i] for k in range(3)])


def test_two_classes_and_a_class_without_images():
    scores = score(torch.tensor([[2.0, 1.0], [3.0, 0.0]]), torch.tensor([0, 0]), ["yes", "no"])
    assert (scores.top1, scores.top5) == (1.0, 1.0)
    assert (scores.classes[1].images, scores.classes[1].recall) == (0, 0.0)
