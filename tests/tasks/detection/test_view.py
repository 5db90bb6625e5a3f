import json

import pytest
import torch
from rich.console import Console

from tests.tasks.detection.coco import IDS, write_coco
from tests.tasks.detection.models import INPUT, TINY, tiny_head
from v2m.cli.predict import PredictOptions, predict
from v2m.cli.views import detection as view
from v2m.data import read_image
from v2m.data.loading import EvalLoader
from v2m.engine.evaluate import Evaluation
from v2m.tasks import load_model
from v2m.tasks.detection.config import DetectionConfig
from v2m.tasks.detection.task import Detection

CPU = torch.device("cpu")


@pytest.fixture(scope="module", params=["mask_rcnn", "retinanet"])
def task(request, tmp_path_factory):
    """A detector that finds much, in its folder."""
    folder = tmp_path_factory.mktemp("run")
    root = write_coco(folder / "coco", dict(train=[(48, 64)] * 4, val=[(48, 64), (40, 50)] * 3))
    head = tiny_head(request.param, score_threshold=0.0, detections=6)
    config = DetectionConfig(data=str(root), model_args=TINY, input=INPUT, head=head)
    task = Detection(Detection.resolve(config))
    task.open_data(print)
    task.save(task.build(None), folder)
    return task, folder


@pytest.fixture
def consoles(capsys):
    def read():
        return capsys.readouterr()

    return Console(width=200, highlight=False, markup=False), Console(stderr=True, width=200), read


def options(folder, output, *images, **others):
    values = dict(model=str(folder), images=tuple(map(str, images)), output=str(output) if output else None)
    return PredictOptions(**values | dict(threshold=0.0, batch_size=4) | others)


def test_evaluation_is_drawn_and_written(task, tmp_path, consoles):
    task, folder = task
    out, _, read = consoles
    saved = load_model(folder)
    results = saved.evaluator.results(task.val_data)
    for batch in EvalLoader(task.val_data, 4, collate=task.evaluator.collate):
        results.add(saved.model, batch, CPU, torch.no_grad)
    evaluation = Evaluation(results.scores(), results, [])
    view.print_scores(out, evaluation)
    view.print_classes(out, evaluation.scores)
    text = read().out
    assert text.startswith("validation box AP ")
    assert ("mask AP" in text) == task.config.head.has_masks
    assert "6 images)" in text
    assert all(name in text for name in task.classes)
    view.draw(tmp_path, "tiny on shapes", task.val_data, evaluation)
    assert {path.name for path in tmp_path.iterdir()} == {name for name, _ in view.FILES}
    entries = json.loads((tmp_path / view.RESULTS).read_text())
    assert entries == results.entries()
    assert {e["category_id"] for e in entries} <= set(IDS)
    assert {e["image_id"] for e in entries} == set(task.val_data.image_ids)
    assert all(("segmentation" in e) == task.config.head.has_masks for e in entries)
    for name in (view.PREDICTIONS, view.CLASSES):
        assert min(read_image(tmp_path / name).size) > 100


def test_files_are_predicted(task, tmp_path, consoles):
    task, folder = task
    out, errors, read = consoles
    images = folder / "coco" / "images" / "val"
    saved = load_model(folder)
    assert predict(options(folder, tmp_path / "new" / "out", images), saved, view, out, errors) == 0
    names = sorted(path.name for path in images.iterdir())
    output = tmp_path / "new" / "out"
    assert sorted(path.name for path in output.iterdir()) == [*names, view.RESULTS]
    entries = json.loads((output / view.RESULTS).read_text())
    assert len(entries) == 6 * len(names)
    for entry in entries:
        assert entry["image_id"] == int(entry["file_name"].removesuffix(".png"))
        assert entry["category_id"] in IDS
        assert len(entry["bbox"]) == 4
        if task.config.head.has_masks:
            height, width = task.val_data.size(task.val_data.image_ids.index(entry["image_id"]))
            assert entry["segmentation"]["size"] == [height, width]
            assert isinstance(entry["segmentation"]["counts"], str)
    lines = read().out.splitlines()
    assert lines[0].startswith(f"{images / names[0]}  6 objects: ")
    assert lines[0].count("%") == 6
    assert lines[-1] == f"pictures and results.json: {output}"
    assert max(read_image(output / names[0]).size) >= 600


def test_lines_of_json(task, tmp_path, consoles):
    _, folder = task
    out, errors, read = consoles
    image = folder / "coco" / "images" / "val" / "000101.png"
    saved = load_model(folder)
    assert predict(options(folder, tmp_path, image, json=True), saved, view, out, errors) == 0
    (line,) = read().out.splitlines()
    found = json.loads(line)
    assert found["image"] == str(image)
    assert found["picture"] == str(tmp_path / "000101.png")
    assert [set(one) for one in found["objects"]] == [{"class", "score", "box"}] * 6
    predict(options(folder, tmp_path, image, json=True, threshold=1.0), saved, view, out, errors)
    assert json.loads(read().out)["objects"] == []
    assert len(json.loads((tmp_path / view.RESULTS).read_text())) == 6


def test_names_that_are_taken_and_files_that_cannot_be_read(task, tmp_path, consoles):
    _, folder = task
    out, errors, read = consoles
    original = folder / "coco" / "images" / "val" / "000101.png"
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "x.png").write_bytes(original.read_bytes())
    (tmp_path / "b" / "broken.png").write_bytes(b"no image")
    saved = load_model(folder)
    arguments = options(folder, tmp_path / "a", tmp_path / "a", tmp_path / "b", tmp_path / "none")
    assert predict(arguments, saved, view, out, errors) == 1
    assert (tmp_path / "a" / "x.png").read_bytes() == original.read_bytes()
    assert sorted(path.name for path in (tmp_path / "a").iterdir()) == [
        "a-x.png",
        "b-x.png",
        view.RESULTS,
        "x.png",
    ]
    ids = {e["image_id"] for e in json.loads((tmp_path / "a" / view.RESULTS).read_text())}
    assert ids == {1, 3}
    text = read().err
    assert "broken.png: not a readable image" in text
    assert f"{tmp_path / 'none'}: no such file or folder" in text


def test_output_is_beside_the_model(task, consoles):
    _, folder = task
    out, errors, _ = consoles
    image = folder / "coco" / "images" / "val" / "000101.png"
    model = folder / "model.safetensors"
    assert predict(options(model, None, image), load_model(model), view, out, errors) == 0
    assert (folder / "predictions" / "000101.png").is_file()
