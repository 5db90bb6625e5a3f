import torch

from v2m.cli.views.classification import choose_images


def test_sheet_starts_with_the_surest_mistakes_and_fills_up():
    logits = torch.tensor([[9.0, 0], [5, 0], [0, 4], [0, 3], [2, 0], [1, 0]])
    targets = torch.tensor([1, 1, 1, 1, 0, 0])
    assert choose_images(logits, targets, 4)[:2] == [0, 1]
    assert sorted(choose_images(logits, targets, 10)) == [0, 1, 2, 3, 4, 5]
    assert choose_images(logits, targets, 2)[0] == 0
    assert choose_images(logits, targets, 5) == choose_images(logits, targets, 5)
