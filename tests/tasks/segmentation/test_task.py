"""Segmentation as the engine and the commands use it."""

import json
from contextlib import nullcontext
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from tests.tasks.segmentation.conftest import CLASSES, SMALL, make_masked_folder
from v2m.cli.output import console
from v2m.cli.predict import PredictOptions
from v2m.cli.predict import predict as predict_images
from v2m.cli.views import segmentation as cli
from v2m.data.loading import EvalLoader, TrainLoader
from v2m.engine.evaluate import Evaluation
from v2m.system.errors import DataError
from v2m.tasks import load_model
from v2m.tasks.model_folder import read_folder
from v2m.tasks.segmentation.config import (
    AugmentConfig,
    HeadConfig,
    InferenceConfig,
    InputConfig,
    LossConfig,
    SegmentationConfig,
)
from v2m.tasks.segmentation.metrics import score
from v2m.tasks.segmentation.model import predict
from v2m.tasks.segmentation.task import Segmentation

CPU = torch.device("cpu")


def make_task(folder, **changes):
    config = SegmentationConfig(
        data=str(folder),
        model_args=dict(SMALL),
        input=InputConfig(crop_size=32),
        augment=AugmentConfig(scale=(1.0, 1.0), photometric=0.0),
        head=HeadConfig("fpn", 128),
        batch_size=4,
    )
    task = Segmentation(Segmentation.resolve(replace(config, **changes)))
    task.open_data(lambda line: None)
    return task


def evaluate(task, model):
    results = task.evaluator.results(task.val_data)
    for batch in EvalLoader(task.val_data, 2, collate=task.evaluator.collate):
        results.add(model.eval(), batch, CPU, nullcontext)
    results.merge([results.state()])
    return Evaluation(results.scores(), results, [])


@pytest.fixture(scope="module")
def trained(masked_folder, tmp_path_factory):
    """A task, its trained model, the scores before and after, and where it was saved."""
    torch.manual_seed(0)
    task = make_task(masked_folder)
    model = task.build(None)
    before = evaluate(task, model).scores
    objective = task.build_objective(model)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    model.train()
    for epoch in range(1, 26):
        for (batch,) in TrainLoader(task.train_data, 4, collate=task.collate).epoch(epoch):
            result = objective(*task.mix(batch.images, batch.targets))
            right, counted = task.count_right(result["output"], batch.targets)
            assert 0 <= right <= counted == (batch.targets != 255).sum()
            optimizer.zero_grad()
            result["loss"].backward()
            optimizer.step()
    folder = tmp_path_factory.mktemp("run")
    task.save(model.eval(), folder)
    return SimpleNamespace(task=task, model=model, before=before, found=evaluate(task, model), folder=folder)


def test_learns(trained):
    scores = trained.found.scores
    assert scores.loss < trained.before.loss
    assert scores.miou > max(0.6, trained.before.miou)
    assert scores.images == 5
    assert [metric.key in scores.metrics for metric in trained.task.val_metrics] == [True, True]


def test_saved_model_is_the_same(trained, masked_folder):
    saved = load_model(trained.folder)
    assert saved.name == "v2m_lite_nano"
    assert not saved.model.training
    assert saved.evaluator.classes == CLASSES
    assert saved.evaluator.input == trained.task.config.input
    assert saved.evaluator.inference == trained.task.config.inference
    images = [torch.randn(3, 40, 50)]
    expected = predict(trained.model, images, InferenceConfig())[0]
    assert torch.equal(predict(saved.model, images, InferenceConfig())[0], expected)
    data = saved.evaluator.open_data(str(masked_folder), masked_folder)
    assert torch.equal(data[3][0], trained.task.val_data[3][0])


def test_settings_come_back(masked_folder, tmp_path):
    task = make_task(
        masked_folder,
        input=InputConfig(crop_size=(32, 64), label_map={255: 255, 7: 1}),
        inference=InferenceConfig(window=32, scales=(0.5, 1.0), flip=True),
        loss=LossConfig(auxiliary=0.0),
    )
    task.save(task.build(None), tmp_path)
    saved = load_model(tmp_path / "model.safetensors")
    assert saved.evaluator.input == task.config.input
    assert saved.evaluator.inference == task.config.inference
    assert saved.model.auxiliary_head is None


def test_starts_from_a_run(trained, masked_folder):
    other = make_task(masked_folder, pretrained=str(trained.folder), head=HeadConfig("upernet", 32))
    state = other.build(str(trained.folder)).state_dict()
    expected = trained.model.state_dict()
    assert all(torch.equal(state[k], v) for k, v in expected.items() if k.startswith("backbone."))
    same = make_task(masked_folder, pretrained=str(trained.folder)).build(str(trained.folder))
    assert all(torch.equal(v, expected[k]) for k, v in same.state_dict().items())


def test_unusable_folders(trained, masked_folder, tmp_path):
    with pytest.raises(DataError, match="no model there"):
        load_model(tmp_path)
    for name in ("model.safetensors", "config.json"):
        (tmp_path / name).write_bytes((trained.folder / name).read_bytes())
    config = json.loads((tmp_path / "config.json").read_text())
    del config["sha256"]
    for change, message in (
        (dict(task="detection"), "a model for detection, expected a segmentation model"),
        (dict(num_classes=4), r"cannot be loaded \(config\.json: label_names has 3 names, but"),
        (dict(inference=dict(scales=[1.0], crop=1)), r"cannot be loaded \(config\.json"),
    ):
        (tmp_path / "config.json").write_text(json.dumps(config | change))
        with pytest.raises(DataError, match=message):
            Segmentation.load(read_folder(tmp_path))


def test_classes_are_those_of_the_model(trained, tmp_path):
    folder = make_masked_folder(tmp_path)
    (folder / "classes.txt").write_text("a\nb\nc\n")
    with pytest.raises(DataError, match=r"the classes of .* are a, b, c, the model's ground, red, green"):
        trained.task.evaluator.open_data(str(folder), folder)


def test_one_class_is_too_few(tmp_path):
    folder = make_masked_folder(tmp_path)
    (folder / "classes.txt").write_text("all\n")
    with pytest.raises(DataError, match="has the class all only, expected 2"):
        make_task(folder)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: InputConfig(crop_size=0), "input.crop_size is 0"),
        (lambda: InputConfig(mean=(0.5,)), "input.mean is"),
        (lambda: InputConfig(label_map={-1: 0}), "input.label_map has the value -1"),
        (lambda: InputConfig(label_map={7: 10**30}), "input.label_map has the label 10"),
        (lambda: InputConfig(ignore_index=-(10**30)), "input.ignore_index is -10"),
        (lambda: AugmentConfig(scale=(2.0, 1.0)), "augment.scale is"),
        (lambda: AugmentConfig(hflip=2.0), "augment.hflip is 2.0"),
        (lambda: HeadConfig("fpn", 100), "head.channels is 100, expected a multiple of 128 for fpn"),
        (lambda: HeadConfig(dropout=1.0), "head.dropout is 1.0"),
        (lambda: LossConfig(auxiliary=-1.0), "loss.auxiliary is -1.0"),
        (lambda: LossConfig(label_smoothing=1.0), "loss.label_smoothing is 1.0"),
        (lambda: InferenceConfig(window=0), "inference.window is 0"),
        (
            lambda: InferenceConfig(window=10, stride=20),
            "inference.stride is 20, expected at most the window",
        ),
        (lambda: InferenceConfig(stride=20), "inference.stride is 20"),
        (lambda: InferenceConfig(scales=()), "inference.scales is"),
        (lambda: SegmentationConfig("x", batch_size=2, accumulate=2), "two images a part for upernet"),
    ],
)
def test_wrong_settings(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_pictures_and_tables(trained, tmp_path, capsys):
    cli.draw(tmp_path, "tiny", trained.task.val_data, trained.found)
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(name for name, _ in cli.FILES)
    cli.print_scores(console(), trained.found)
    cli.print_classes(console(), trained.found.scores)
    printed = capsys.readouterr().out
    assert printed.startswith("validation mIoU ")
    assert "5 images)" in printed
    assert all(name in printed for name in CLASSES)


def test_the_mean_says_of_which_classes_it_is(capsys):
    confusion = torch.tensor([[9, 0], [0, 0]])
    cli.print_scores(console(), Evaluation(score(confusion, 0.0, 1, ["ground", "car"]), None, []))
    assert capsys.readouterr().out.startswith("validation mIoU 100.00% of 1 of 2 classes  (accuracy 100.00%")


def test_masks_without_anything_to_learn(tmp_path):
    folder = make_masked_folder(tmp_path)
    for path in (folder / "masks" / "val").iterdir():
        Image.fromarray(np.minimum(np.asarray(Image.open(path)), 1)).save(path)
    said = []
    Segmentation(make_task(folder).config).open_data(said.append)
    assert len(said) == 1
    assert said[0].endswith("val (5 in all) have no pixel of the classes green: scores say nothing of them")
    for path in (folder / "masks" / "train").iterdir():
        Image.fromarray(np.asarray(Image.open(path)) // 255 * 255).save(path)
    with pytest.raises(DataError, match="is of the class ground, so there is nothing to learn"):
        make_task(folder)


def options(trained, images, **changes):
    values = dict(model=str(trained.folder), images=tuple(images), batch_size=2)
    return PredictOptions(**values | changes)


def test_predict_keeps_every_file(trained, masked_folder, tmp_path, capsys):
    saved = load_model(trained.folder)
    inputs = tmp_path / "inputs"
    for folder in ("a", "b"):
        (inputs / folder).mkdir(parents=True)
        (inputs / folder / "0.png").write_bytes((masked_folder / "images" / "val" / "0.png").read_bytes())
    (inputs / "broken.png").write_bytes(b"")
    given = options(trained, [str(inputs), "missing.png"], output=str(inputs / "a"))
    assert predict_images(given, saved, cli, console(), console(stderr=True)) == 1
    printed = capsys.readouterr()
    assert printed.out.count("ground ") == 2
    assert "broken.png" in printed.err
    assert "missing.png" in printed.err
    names = ["0.png", "a-0.png", "a-0_labels.png", "b-0.png", "b-0_labels.png"]
    assert sorted(p.name for p in (inputs / "a").iterdir()) == names
    with Image.open(inputs / "a" / "a-0_labels.png") as labels:
        assert labels.mode == "P"
        assert np.array_equal(np.asarray(labels), trained.found.results.shown[0].numpy())


def test_predict_as_json(trained, masked_folder, capsys):
    saved = load_model(trained.folder)
    images = [str(masked_folder / "images" / "val")]
    given = options(trained, images, json=True)
    assert predict_images(given, saved, cli, console(), console(stderr=True)) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert len(rows) == 5
    for row in rows:
        assert sum(item["share"] for item in row["classes"]) == pytest.approx(1, abs=1e-4)
        assert row["picture"].startswith(str(trained.folder / "predictions"))
