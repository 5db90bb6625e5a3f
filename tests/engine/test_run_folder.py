import math

from v2m.engine.run_folder import best_row


def test_best_of_equal_scores_has_the_lowest_loss():
    rows = [
        {"epoch": epoch, "val_top1": top1, "val_loss": loss}
        for epoch, (top1, loss) in enumerate([(0.5, 0.1), (1.0, 0.5), (1.0, 0.2), (1.0, math.nan)], start=1)
    ]

    assert best_row(rows, ["top1"])["epoch"] == 3
    assert best_row([{"epoch": 1, "val_map": 0.2}, {"epoch": 2, "val_map": 0.2}], ["map"])["epoch"] == 1
