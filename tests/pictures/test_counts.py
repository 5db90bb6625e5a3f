from tests.pictures.ink import ink
from v2m.pictures import plot_classes


def test_classes_are_bars_with_zeros_in_red_or_curves(tmp_path):
    full, lacking = dict(a=5, b=3), dict(a=5, c=1)
    plot_classes(dict(train=full, val=full), tmp_path / "full.png", "title")
    plot_classes(dict(train=full, val=lacking), tmp_path / "lacking.png", "title")
    many = {f"class {i}": i + 1 for i in range(60)}
    plot_classes(dict(train=many, val=full), tmp_path / "many.png", "title")
    for name in ("full", "lacking", "many"):
        assert {(0x21, 0x66, 0xAC), (0xE0, 0x82, 0x14)} <= ink(tmp_path / f"{name}.png")[1]

    def reds(name):
        return sum(red > 150 and green < 100 for red, green, _ in ink(tmp_path / f"{name}.png")[1])

    assert reds("full") == 0 < reds("lacking")
