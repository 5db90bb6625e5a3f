"""Trained models of any task from Python: how they are named, and that they predict what the command does."""

import http.server
import json
import os
import subprocess
import sys
import threading
from functools import partial

import numpy as np
import pytest
import torch
from PIL import Image
from timm.models import save_for_hf

import v2m
from tests.conftest import make_image_folder
from tests.scenes import CLASSES, make_scenes, train_arguments
from tests.tasks.classification.test_model import SMALL
from v2m.cli import main
from v2m.system.errors import DataError
from v2m.tasks.predictions import SegmentationPrediction
from v2m.tasks.timm_models import imagenet_classes

TASKS = ("classification", "detection", "segmentation")


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A run of every task."""
    parent = tmp_path_factory.mktemp("runs")
    images, scenes = make_image_folder(parent), make_scenes(parent)
    classify = ["train", f"--data={images}", f"--output={parent / 'classification'}", "--epochs=1"]
    assert main([*classify, "--device=cpu", '--model_args={"embed_dim": 8, "depth": 1}']) == 0
    for task in TASKS[1:]:
        assert main(train_arguments(task, scenes, parent / task)) == 0
    return {task: parent / task for task in TASKS}


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Files of all modes: colour that EXIF turns, gray of 8 and of 16 bits, with opacity, a palette."""
    folder = tmp_path_factory.mktemp("photos")
    pixels = np.random.default_rng(0).integers(0, 256, (50, 70, 4), dtype=np.uint8)
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(pixels[..., :3]).save(folder / "1-turned.jpg", exif=exif)
    Image.fromarray(pixels[..., 0]).save(folder / "2-gray.png")
    Image.fromarray(pixels[..., 0].astype(np.uint16) * 200).save(folder / "3-deep.png")
    Image.fromarray(pixels).save(folder / "4-opacity.png")
    Image.fromarray(pixels[..., :3]).convert("P").save(folder / "5-palette.png")
    return folder


def command(run, photos, output, capsys):
    """What ``v2m predict`` says of each photo."""
    capsys.readouterr()
    arguments = ["predict", str(run), str(photos), "--json", "--top=3", "--threshold=0"]
    assert main([*arguments, f"--output={output}"]) == 0
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_a_classifier_predicts_what_the_command_does(runs, photos, tmp_path, capsys):
    expected = command(runs["classification"], photos, tmp_path, capsys)
    model = v2m.load(runs["classification"])
    assert (model.task, model.name, model.classes) == (
        "classification",
        "v2m_nano",
        ["blue", "green", "red"],
    )
    found = model.predict(sorted(photos.iterdir()), batch_size=2)
    assert len(found) == len(expected) == 5
    for prediction, row in zip(found, expected, strict=True):
        top = [{"class": name, "probability": round(p, 6)} for name, p in prediction.top(3)]
        assert top == row["predictions"]
        assert (prediction.label, prediction.probability) == prediction.top(1)[0]
        assert sum(prediction.probabilities.values()) == pytest.approx(1)


def test_a_detector_predicts_what_the_command_does(runs, photos, tmp_path, capsys):
    expected = command(runs["detection"], photos, tmp_path, capsys)
    model = v2m.load(str(runs["detection"]))
    found = model.predict(iter(sorted(photos.iterdir())))
    assert sum(map(len, found))
    sizes = [(70, 50), *[(50, 70)] * 4]
    for prediction, row, size in zip(found, expected, sizes, strict=True):
        objects = [
            {"class": label, "score": round(score, 6), "box": [round(edge, 2) for edge in box]}
            for label, score, box in zip(
                prediction.labels, prediction.scores.tolist(), prediction.boxes.tolist(), strict=True
            )
        ]
        assert objects == row["objects"]
        assert prediction.boxes.shape == (len(prediction), 4)
        assert prediction.masks.shape == (len(prediction), *size)
        assert prediction.masks.dtype == bool
    first = max(found, key=len)
    best = float(first.scores[0])
    few = first.above(best)
    assert len(few) == len(few.boxes) == len(few.scores) == len(few.masks) == (first.scores >= best).sum()
    assert len(first.above(1.1)) == 0


def test_a_segmenter_predicts_what_the_command_does(runs, photos, tmp_path, capsys):
    expected = command(runs["segmentation"], photos, tmp_path, capsys)
    model = v2m.load(runs["segmentation"] / "model.safetensors")
    for prediction, row in zip(model.predict(sorted(photos.iterdir())), expected, strict=True):
        with Image.open(row["labels"]) as written:
            assert np.array_equal(prediction.label_map, written)
        found = [{"class": name, "share": round(share, 6)} for name, share in prediction.shares.items()]
        assert sorted(found, key=str) == sorted(row["classes"], key=str)


def test_parts_of_a_segmentation():
    found = SegmentationPrediction(np.array([[0, 2, 2]]), ["a", "b", "c"])
    assert found.mask("c").tolist() == [[False, True, True]]
    assert found.shares == {"c": 2 / 3, "a": 1 / 3}
    with pytest.raises(ValueError, match=r"'d' is no class of this model, expected one of a, b, c"):
        found.mask("d")


@pytest.mark.parametrize("task", TASKS)
def test_transforms_give_what_the_model_takes(runs, photos, task):
    model = v2m.load(runs[task] / "best", device="cpu")
    with Image.open(photos / "4-opacity.png") as image:
        tensor = model.transforms(image)
    assert tensor.dtype == torch.float32
    assert tensor.shape[0] == 3
    with torch.no_grad():
        model.model(tensor[None])  # a batch, or for a detector as good as a list
    assert model.to("cpu").device == torch.device("cpu")
    assert repr(model).startswith(f"SavedModel({model.name} for {task}, ")


def test_one_image_gives_one_result_and_a_batch_several(runs, photos):
    model = v2m.load(runs["classification"])
    path = photos / "2-gray.png"
    with Image.open(path) as image:
        array = np.array(image)
    single = model.predict(str(path))
    assert model.predict([path, array, torch.from_numpy(array)[None]]) == [single] * 3
    assert model.predict(np.stack([array[..., None]] * 2)) == [single] * 2
    assert model.predict([]) == []
    assert model.predict(p for p in [path]) == [single]


def test_an_image_that_cannot_be_read_is_named_with_its_place(runs, photos, tmp_path):
    model = v2m.load(runs["classification"])
    (tmp_path / "broken.jpg").write_bytes(b"nothing")
    with pytest.raises(DataError, match=r"^images\[1\]: .*broken.jpg: not a readable image \("):
        model.predict([photos / "2-gray.png", tmp_path / "broken.jpg"], batch_size=1)
    with pytest.raises(DataError, match=r"^.*broken.jpg: not a readable image \(") as caught:
        model.predict(tmp_path / "broken.jpg")
    assert "images[" not in str(caught.value)
    with pytest.raises(ValueError, match="batch_size is 0, expected at least 1"):
        model.predict([], batch_size=0)
    with pytest.raises(DataError, match="images is of type int, expected a path, "):
        model.predict(7)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("v2m_nano", "no trained weights of this model; train it"),
        ("timm/v2m_tiny_local", "no trained weights of this model; train it"),
        ("resnet19", "resnet19: neither a folder with a model nor a model of timm; the nearest"),
        ("timm/resnet19", "'resnet19' is no model, nearest: resnet"),
        ("nowhere/at/all", "nowhere/at/all: no model there, expected a run folder"),
        ("local-dir:nowhere", "nowhere: no model there, expected a run folder"),
    ],
)
def test_names_of_nothing(source, message):
    with pytest.raises(ValueError, match=message):
        v2m.load(source)


def test_names_of_imagenet_are_told_apart():
    names = imagenet_classes(1000)
    assert len(set(names)) == 1000
    assert names[0] == "tench, Tinca tinca"
    assert [name for name in names if name.startswith("crane")] == ["crane (n02012849)", "crane (n03126707)"]
    assert imagenet_classes(10) is None


def test_a_folder_of_timm_without_names_has_those_of_imagenet(tmp_path):
    save_for_hf(v2m.create_model("v2m_nano", **SMALL), tmp_path, safe_serialization=True)
    assert v2m.load(tmp_path).classes[0] == "tench, Tinca tinca"


@pytest.fixture
def hub(runs):
    """The address of a server that answers as the Hugging Face Hub does, with our runs as repositories."""
    revision = "0" * 40

    class Hub(http.server.SimpleHTTPRequestHandler):
        def translate_path(self, path):  # /OWNER/NAME/resolve/REVISION/FILE
            return str(runs.get(path.split("/")[2], runs["detection"] / "nowhere") / path.split("/")[-1])

        def end_headers(self):
            path = self.translate_path(self.path)
            if os.path.isfile(path):
                self.send_header("ETag", f'"{abs(hash(path)):x}"')
                self.send_header("X-Repo-Commit", revision)
            super().end_headers()

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Hub)) as serving:
        threading.Thread(target=serving.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{serving.server_port}"
        serving.shutdown()


def test_repositories_of_the_hub(hub, photos, runs, tmp_path):
    code = """
import sys, v2m
for task in ("classification", "detection"):
    model = v2m.load(f"hf-hub:someone/{task}")
    print(model.task, model.classes, model.predict(sys.argv[1]))
try:
    v2m.load("hf-hub:someone/nothing@main")
except ValueError as error:
    print(error)
"""
    env = os.environ | dict(HF_ENDPOINT=hub, HF_HOME=str(tmp_path), HF_HUB_DISABLE_TELEMETRY="1")
    env.pop("HF_HUB_OFFLINE", None)
    photo = str(photos / "2-gray.png")
    result = subprocess.run(
        [sys.executable, "-c", code, photo], env=env, capture_output=True, text=True, timeout=120
    )
    assert result.returncode == 0, result.stderr
    lines = result.stdout.splitlines()
    own = v2m.load(runs["classification"])
    assert lines[0] == f"classification {own.classes} {own.predict(photo)}"
    assert lines[1].startswith(f"detection {CLASSES}")
    assert lines[-1].startswith("hf-hub:someone/nothing@main: the model cannot be had (")


@pytest.mark.parametrize("task", TASKS)
def test_the_command_predicts_for_addresses(runs, photos, tmp_path, capsys, task):
    handler = partial(http.server.SimpleHTTPRequestHandler, directory=photos)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as serving:
        threading.Thread(target=serving.serve_forever, daemon=True).start()
        server = f"http://127.0.0.1:{serving.server_port}"
        arguments = [f"{server}/1-turned.jpg", f"{server}/nothing.jpg", str(photos / "1-turned.jpg")]
        code = main(
            ["predict", str(runs[task]), *arguments, "--json", "--threshold=0", f"--output={tmp_path}"]
        )
        serving.shutdown()
    out, err = capsys.readouterr()
    of_address, of_file = map(json.loads, out.splitlines())
    assert code == 1
    assert f"v2m: error: {server}/nothing.jpg: not a readable image (the server answers 404" in err
    assert of_address.pop("image") == f"{server}/1-turned.jpg"
    of_file.pop("image")
    pictures = [
        found.pop(kind) for found in (of_address, of_file) for kind in ("picture", "labels") if kind in found
    ]
    assert of_address == of_file
    assert len(set(pictures)) == len(pictures)
