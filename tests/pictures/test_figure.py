import numpy as np
import pytest
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from tests.hostile import NAMES
from v2m.pictures import (
    plot_classes,
    plot_confusion_matrix,
    plot_learning_curve,
    plot_predictions,
    plot_probes,
    plot_study,
)
from v2m.pictures.figure import add_legend, short_name


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
    for text, options in ((short_name(name), {}), (name, dict(parse_math=False))):
        figure = Figure()
        figure.text(0.1, 0.5, text, **options)
        canvas = FigureCanvasAgg(figure)
        canvas.draw()
        drawn.append(np.asarray(canvas.buffer_rgba()).copy())
    assert (drawn[0] == drawn[1]).all()
    assert drawn[0].min() < 255
    figure = Figure()
    add_legend(figure, figure.add_subplot().plot([0]), [short_name(name)])
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == [short_name(name)]
