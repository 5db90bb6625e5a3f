"""Folders with models: what is saved, and what runs of one task start from in those of another."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file

from tests.scenes import CLASSES, MODEL_ARGS, TASKS, configure, make_scenes, opened_task
from v2m.data import ImageSpec
from v2m.engine.resolve import resolve
from v2m.system.errors import DataError
from v2m.tasks import find_task, load_model, model_folder
from v2m.tasks.classification.evaluation import ClassificationEvaluator
from v2m.tasks.classification.model import build_classifier
from v2m.tasks.classification.saved import save as save_classifier
from v2m.tasks.feature_backbone import PYRAMID

PLAIN = dict(embed_dim=16, depth=4, d_state=2)
"""Arguments of v2m_tiny_patch16_224, whose pyramid has weights."""
each_task = pytest.mark.parametrize("task", TASKS)


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    return make_scenes(tmp_path_factory.mktemp("data"), train=2, val=1)


def make_classifier(folder, name="v2m_lite_nano", model_args=MODEL_ARGS, channels=3, size=32):
    """A folder with an untrained classifier of three classes."""
    folder.mkdir(exist_ok=True)
    spec = ImageSpec((size, size), channels, (0.3,) * channels, (0.4,) * channels, 1.0, "bicubic")
    save_classifier(
        build_classifier(name, model_args, 3, spec), ClassificationEvaluator(["a", "b", "c"], spec), folder
    )
    return folder


def make(task, scenes, tmp_path, *more):
    """A task with data, and a model of it."""
    config = resolve(configure(task, scenes, tmp_path / "run", *more))
    made = opened_task(config)
    return made, made.build(config.pretrained)


def make_folders(scenes, parent):
    """A folder with an untrained model of every task, with one backbone."""
    found = dict(classification=make_classifier(parent / "classification"))
    for task in TASKS:
        made, model = make(task, scenes, parent)
        found[task] = parent / task
        found[task].mkdir()
        made.save(model, found[task])
    return found


@pytest.fixture(scope="module")
def folders(scenes, tmp_path_factory):
    return make_folders(scenes, tmp_path_factory.mktemp("folders"))


def backbone_weights(model_or_folder):
    """Weights of a backbone, by the names of timm's whole model."""
    if hasattr(model_or_folder, "saved_config"):
        state, prefix = model_or_folder.state_dict(), model_or_folder.saved_config()["backbone"]
    else:
        folder = model_folder.read_folder(model_or_folder)
        state, prefix = model_folder.read_weights(folder), folder.config.get("backbone", "")
    own = {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
    return {name.removeprefix("model.").removeprefix("model."): value for name, value in own.items()}


def is_started(model, folder):
    """Whether all weights of a backbone are those in a folder."""
    expected, found = backbone_weights(folder), backbone_weights(model)
    assert found
    return all(value.equal(expected[name]) for name, value in found.items())


@each_task
@pytest.mark.parametrize("source", ["classification", *TASKS])
def test_backbones_start_from_runs_of_any_task(scenes, folders, task, source, tmp_path):
    folder = folders[source]
    shutil.copytree(folder, tmp_path / "run of before" / "best")
    for path in (folder, folder / "model.safetensors", tmp_path / "run of before" / "best"):
        _, model = make(task, scenes, tmp_path, f"--pretrained={path}")
        assert is_started(model, folder)
    _, new = make(task, scenes, tmp_path)
    assert not is_started(new, folder)
    if source == task:
        assert all(
            value.equal(load_file(folder / "model.safetensors")[k]) for k, value in model.state_dict().items()
        )


def test_a_head_for_other_classes_is_new_and_the_rest_is_kept(scenes, folders, tmp_path):
    other = shutil.copytree(scenes, tmp_path / "other")
    (other / "classes.txt").write_text("\n".join(["background", *CLASSES, "Scarf"]))
    _, model = make("segmentation", other, tmp_path, f"--pretrained={folders['segmentation']}")
    expected = load_file(folders["segmentation"] / "model.safetensors")
    new = {name for name, value in model.state_dict().items() if value.shape != expected[name].shape}
    assert new == {
        f"{part}.{kind}"
        for part in ("segmentation_head.0", "auxiliary_head.4")
        for kind in ("weight", "bias")
    }
    assert all(value.equal(expected[name]) for name, value in model.state_dict().items() if name not in new)
    assert all(model.state_dict()[name].shape[0] == len(CLASSES) + 2 for name in new)


def test_boxes_start_from_a_detector_with_masks(scenes, folders, tmp_path):
    _, model = make(
        "detection", scenes, tmp_path, f"--pretrained={folders['detection']}", "--head.detector=faster_rcnn"
    )
    expected = load_file(folders["detection"] / "model.safetensors")
    assert all(value.equal(expected[name]) for name, value in model.state_dict().items())


@each_task
def test_a_classifier_of_gray_images_becomes_one_of_colours(scenes, task, tmp_path):
    gray = make_classifier(tmp_path / "gray", channels=1)
    _, model = make(task, scenes, tmp_path, f"--pretrained={gray}")
    expected, found = backbone_weights(gray), backbone_weights(model)
    other = {name for name, value in found.items() if not torch.equal(value, expected[name])}
    assert other == {"stem.0.conv.weight"}
    torch.testing.assert_close(found["stem.0.conv.weight"].sum(1), expected["stem.0.conv.weight"].sum(1))


@each_task
def test_plain_models_keep_their_pyramid_and_resize_their_positions(scenes, task, tmp_path):
    model_args, plain = f"--model_args={json.dumps(PLAIN)}", "--model=v2m_tiny_patch16_224"
    folder = make_classifier(tmp_path / "plain", "v2m_tiny_patch16_224", PLAIN, size=64)
    size = dict(detection="--input.min_size=[96]", segmentation="--input.crop_size=96")[task]
    made, model = make(task, scenes, tmp_path, plain, model_args, size, f"--pretrained={folder}")
    found, expected = backbone_weights(model), backbone_weights(folder)
    pyramid = {name for name in found if name.startswith(PYRAMID.removeprefix("model."))}
    assert pyramid
    assert {name for name in found.keys() - pyramid if not torch.equal(found[name], expected[name])} == {
        "pos_embed"
    }
    made.save(model, tmp_path / "plain")
    _, again = make(task, scenes, tmp_path, plain, model_args, size, f"--pretrained={folder}")
    assert is_started(again, folder)


@each_task
def test_arguments_of_the_model_come_from_the_folder(scenes, folders, task, tmp_path):
    config = configure(
        task,
        scenes,
        tmp_path / "run",
        f"--pretrained={folders['classification']}",
        "--model_args={drop_path_rate: 0.25}",
    )
    assert resolve(config).model_args.items() >= (MODEL_ARGS | dict(drop_path_rate=0.25)).items()
    shutil.copytree(folders["classification"], tmp_path / "gone")
    config = configure(task, scenes, tmp_path / "run", f"--pretrained={tmp_path / 'gone'}")
    shutil.rmtree(tmp_path / "gone")
    assert resolve(config).model_args == MODEL_ARGS


@each_task
def test_folders_that_cannot_be_started_from_are_named(scenes, folders, task, tmp_path):
    for source in ("classification", *TASKS):
        damaged = shutil.copytree(folders[source], tmp_path / f"damaged {source}")
        (damaged / "model.safetensors").write_bytes(b"no weights")
        other = shutil.copytree(folders[source], tmp_path / f"other {source}")
        config = json.loads((other / "config.json").read_text())
        config["model_args"] |= dict(depths=[1, 1, 2, 1])
        (other / "config.json").write_text(json.dumps(config))
        no_json = shutil.copytree(folders[source], tmp_path / f"no json {source}")
        (no_json / "config.json").write_text("{")
        for folder, more, message in (
            (damaged, (), r"pretrained: .*damaged.*: the model cannot be loaded \("),
            (other, ("--model_args={depths: [1, 1, 2, 1]}",), "pretrained: .*other"),
            (no_json, (), r"pretrained: .*no json.*: the model cannot be loaded \(config\.json: "),
            (tmp_path / "nowhere", (), "pretrained: .*nowhere: no model there"),
            (
                folders[source],
                ("--model=resnet18", "--model_args={}"),
                "holds a v2m_lite_nano, .* give --model v2m_lite_nano",
            ),
        ):
            with pytest.raises(ValueError, match=message) as raised:
                make(task, scenes, tmp_path, f"--pretrained={folder}", *more)
            assert "\n" not in str(raised.value)
    with pytest.raises(ValueError, match="pretrained: timm has no weights of v2m_lite_nano"):
        make(task, scenes, tmp_path, "--pretrained=timm")


@each_task
def test_what_was_saved_is_loaded_for_its_own_task_alone(folders, task):
    saved = load_model(folders[task] / "model.safetensors")
    assert saved.name == "v2m_lite_nano"
    assert not saved.model.training
    assert saved.evaluator.classes[-4:] == CLASSES
    for other in {"classification", *TASKS} - {task}:
        with pytest.raises(DataError, match=f"for {task}, expected"):
            find_task(other).load(model_folder.read_folder(folders[task]))


def test_a_model_that_is_not_whole_is_not_put_in_place(folders, tmp_path, monkeypatch):
    folder = shutil.copytree(folders["detection"], tmp_path / "run")
    before = (folder / "model.safetensors").read_bytes()

    def fail(*args, **kwargs):
        raise OSError("disk full")

    monkeypatch.setattr(model_folder, "save_file", fail)
    with pytest.raises(OSError, match="disk full"):
        model_folder.save_state(torch.nn.Linear(1, 1).state_dict(), {}, folder)
    assert {path.name for path in folder.iterdir()} == {"config.json", "model.safetensors"}
    assert (folder / "model.safetensors").read_bytes() == before


def test_weights_may_be_read_by_whoever_may_read_the_configuration(tmp_path):
    model_folder.save_state(torch.nn.Linear(1, 1).state_dict(), {}, tmp_path)
    modes = {path.stat().st_mode for path in tmp_path.iterdir()}
    assert len(modes) == 1


def with_words_of_before(folder, **words):
    """The same folder with other words in ``config.json``, saved before there were sums."""
    config = json.loads((folder / model_folder.CONFIG).read_text())
    del config[model_folder.SHA256]
    for name in ("mixer", "sweeps"):
        config["model_args"].pop(name, None)
    config["model_args"] |= words
    (folder / model_folder.CONFIG).write_text(json.dumps(config))
    return folder


@pytest.mark.parametrize(
    ("name", "now", "before"),
    [
        ("v2m_nano", dict(mixer="exact"), dict(recurrence="exact")),
        ("v2m_nano", dict(mixer="exact", sweeps=3), dict(recurrence="iterative", iterations=3)),
        ("v2m_nano", dict(mixer="conv"), dict(conv2d=True)),
        ("v2m_nano", dict(mixer="raster"), dict(mixer="raster", directions="corners")),
        ("v2m_hierarchical_small", dict(mixer="conv"), dict(mixer="v2m")),
        ("v2m_hierarchical_small", dict(mixer="v2m"), dict(mixer="v2m")),
        ("v2m_hierarchical_small", dict(mixer="exact"), dict(mixer="v2m", recurrence="exact")),
    ],
)
def test_folders_of_before_load_and_are_started_from(name, now, before, tmp_path):
    shape = MODEL_ARGS if name != "v2m_nano" else dict(embed_dim=8, depth=1)
    folder, x = make_classifier(tmp_path / "run", name, shape | now), torch.randn(1, 3, 32, 32)
    expected = load_model(folder).model(x)
    with_words_of_before(folder, **before)
    loaded = load_model(folder)
    spec = loaded.evaluator.spec
    assert torch.equal(loaded.model(x), expected)
    assert loaded.model.config.mixer == now["mixer"]
    resolved = model_folder.resolve_model_args(name, {}, str(folder))
    assert {key: resolved[key] for key in now} == now
    started = build_classifier(name, resolved, 3, spec, str(folder)).eval()
    assert torch.equal(started(x), expected)
    save_classifier(started, ClassificationEvaluator(["a", "b", "c"], spec), folder)
    saved = json.loads((folder / model_folder.CONFIG).read_text())["model_args"]
    assert {key: saved[key] for key in now} == now
    assert not {"recurrence", "iterations", "conv2d"} & saved.keys()
