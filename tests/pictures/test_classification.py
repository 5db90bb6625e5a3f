import torch
from PIL import Image

from tests.pictures.ink import ink
from v2m.pictures import plot_confusion_matrix, plot_predictions


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
