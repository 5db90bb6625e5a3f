import numpy as np
import pytest
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from tests.hostile import NAMES
from v2m.pictures import (
    choose_images,
    plot_classes,
    plot_confusion_matrix,
    plot_learning_curve,
    plot_predictions,
    plot_probes,
    plot_study,
)
from v2m.pictures.plots import _add_legend, _short


def ink(path):
    """Share of pixels of the picture that are not white, and the colours in it."""
    pixels = np.asarray(Image.open(path).convert("RGB")).reshape(-1, 3)
    return (pixels.min(1) < 250).mean(), {tuple(colour) for colour in np.unique(pixels, axis=0).tolist()}


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


def test_confusion_matrix_draws_few_and_many_classes(tmp_path):
    for count in (2, 60):
        path = tmp_path / f"{count}.png"
        plot_confusion_matrix(
            torch.eye(count).long() * 9, [f"class {i}" for i in range(count)], path, "title"
        )
        _, colours = ink(path)
        assert (0x08, 0x30, 0x6B) in colours, "a class that is always right has the darkest blue"


def test_prediction_sheet_shows_the_images_and_marks_mistakes(tmp_path):
    images = [Image.new("RGB", (6, 6), (10, 200, 30)), Image.new("L", (9, 5), 0)] * 5
    sheet = dict(path=tmp_path / "sheet.png", title="title", columns=4)
    plot_predictions(images, ["a"] * 10, ["a"] * 10, [0.5] * 10, **sheet)
    _, colours = ink(tmp_path / "sheet.png")
    assert (10, 200, 30) in colours
    assert (0xC0, 0x39, 0x2B) not in colours
    plot_predictions(images, ["a"] * 10, ["b"] * 10, [0.5] * 10, **sheet)
    assert (0xC0, 0x39, 0x2B) in ink(tmp_path / "sheet.png")[1]


def test_study_draws_a_dot_for_each_seed_and_their_spread(tmp_path):
    scores = {"one seed": [0.9], "two seeds": [0.8, 0.85], "none": []}
    plot_study({"accuracy": scores, "F1": scores}, tmp_path / "study.png", "title")
    share, colours = ink(tmp_path / "study.png")
    assert share > 0.01
    assert (0x21, 0x66, 0xAC) in colours
    plot_study({"accuracy": {"none": []}}, tmp_path / "empty.png", "title")
    assert (0x21, 0x66, 0xAC) not in ink(tmp_path / "empty.png")[1]


def test_sheet_starts_with_the_surest_mistakes_and_fills_up():
    logits = torch.tensor([[9.0, 0], [5, 0], [0, 4], [0, 3], [2, 0], [1, 0]])
    targets = torch.tensor([1, 1, 1, 1, 0, 0])
    assert choose_images(logits, targets, 4)[:2] == [0, 1]
    assert sorted(choose_images(logits, targets, 10)) == [0, 1, 2, 3, 4, 5]
    assert choose_images(logits, targets, 2)[0] == 0
    assert choose_images(logits, targets, 5) == choose_images(logits, targets, 5)


def test_probes_draw_a_line_and_a_bar_for_each_model_with_any_name(tmp_path):
    knn = {"a": {10: 0.8, 24: 0.7}, "runs/" + 40 * "long": {10: 0.6, 24: 0.5}}
    plot_probes(knn, dict.fromkeys(knn, 0.9), tmp_path / "probes.png", "title")
    _, colours = ink(tmp_path / "probes.png")
    assert {(0x21, 0x66, 0xAC), (0xE0, 0x82, 0x14)} <= colours


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


@pytest.mark.filterwarnings("error")
def test_names_of_any_letters_are_drawn_as_they_are(tmp_path):
    names = [*NAMES.values()]
    count = len(names)
    title = "".join(names)
    curve = [dict(epoch=1, train_loss=1.0, val_loss=1.0)]
    plot_learning_curve(curve, tmp_path / "curve.png", title, dict(loss="loss"))
    plot_confusion_matrix(torch.eye(count), names, tmp_path / "confusion.png", title)
    image = Image.new("RGB", (8, 8))
    shares = [0.5] * count
    plot_predictions([image] * count, names, names[::-1], shares, tmp_path / "sheet.png", title)
    plot_study({names[0]: {name: [0.5] for name in names}}, tmp_path / "study.png", title)
    plot_classes({name: dict.fromkeys(names, 3) for name in names[:2]}, tmp_path / "classes.png", title)
    many = {name + str(i): 3 for name in names for i in range(3)}
    plot_classes({names[0]: many}, tmp_path / "many.png", title)
    plot_probes({name: {1: 0.5} for name in names}, dict.fromkeys(names, 0.5), tmp_path / "p.png", title)
    assert len([*tmp_path.iterdir()]) == 7
    for path in tmp_path.iterdir():
        with Image.open(path) as picture:
            assert max(picture.size) < 5000


@pytest.mark.parametrize("name", [NAMES["math"], NAMES["dollar"], "$x$", r"\$x\$", "_background_"])
def test_no_name_is_a_formula_or_left_out_of_a_legend(name):
    drawn = []
    for text, options in ((_short(name), {}), (name, dict(parse_math=False))):
        figure = Figure()
        figure.text(0.1, 0.5, text, **options)
        canvas = FigureCanvasAgg(figure)
        canvas.draw()
        drawn.append(np.asarray(canvas.buffer_rgba()).copy())
    assert (drawn[0] == drawn[1]).all()
    assert drawn[0].min() < 255
    figure = Figure()
    _add_legend(figure, figure.add_subplot().plot([0]), [_short(name)])
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == [_short(name)]
