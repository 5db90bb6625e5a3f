from tests.pictures.ink import ink
from v2m.pictures import plot_learning_curve


def test_learning_curve_draws_both_lines(tmp_path):
    history = [
        dict(epoch=e, train_loss=2 / e, val_loss=3 / e, train_top1=1 - 1 / e, val_top1=1 - 0.9 / e)
        for e in range(1, 6)
    ]
    plot_learning_curve(history, tmp_path / "curve.png", "a title", dict(top1="accuracy"))
    share, colours = ink(tmp_path / "curve.png")
    assert share > 0.01
    assert {(0x21, 0x66, 0xAC), (0xE0, 0x82, 0x14)} <= colours
    assert [path.name for path in tmp_path.iterdir()] == ["curve.png"]


def test_learning_curve_draws_what_was_measured(tmp_path):
    """A detector has no loss on validation images, and shares of these alone."""
    history = [dict(epoch=e, train_loss=2 / e, val_box_ap=1 - 1 / e) for e in range(1, 6)]
    metrics = dict(mask_ap="mask AP", box_ap="box AP")
    plot_learning_curve(history, tmp_path / "curve.png", "a title", metrics)
    assert {(0x21, 0x66, 0xAC), (0xE0, 0x82, 0x14)} <= ink(tmp_path / "curve.png")[1]
    before = [row | dict(val_mask_ap=0.5) for row in history]
    plot_learning_curve(before, tmp_path / "both.png", "a title", metrics)
    assert ink(tmp_path / "both.png")[0] > ink(tmp_path / "curve.png")[0]
