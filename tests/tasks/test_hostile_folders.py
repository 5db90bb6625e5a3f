"""Folders with models that a stranger made: each is refused in a line, and takes no memory."""

import json
import os
import pickle
import re
import shutil
import struct
import time

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.scenes import MODEL_ARGS, TASKS, make_scenes
from tests.tasks.test_model_folder import make, make_classifier, make_folders
from v2m.data import ImageSpec
from v2m.system.errors import DataError
from v2m.tasks import load_model, model_folder
from v2m.tasks.classification.model import build_classifier
from v2m.tasks.feature_backbone import FeatureBackbone
from v2m.tasks.saved_config import SHA256

SPEC = ImageSpec((32, 32), 3, (0.3,) * 3, (0.4,) * 3, 1.0, "bicubic")
NANO = dict(embed_dim=16, depth=1, d_state=2, patch_size=4)


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    return make_scenes(tmp_path_factory.mktemp("data"), train=2, val=1)


@pytest.fixture(scope="module")
def folders(scenes, tmp_path_factory):
    return make_folders(scenes, tmp_path_factory.mktemp("folders"))


@pytest.fixture
def nano(tmp_path):
    """A plain model of three classes, without sums."""
    folder = make_classifier(tmp_path / "nano", "v2m_nano", NANO)
    edit(folder)
    return folder


def edit(folder, **changes):
    """Change entries of ``config.json``, as an attacker does: without sums."""
    path = folder / model_folder.CONFIG
    config = json.loads(path.read_text())
    config.pop(SHA256, None)
    for name, change in changes.items():
        config[name] = config[name] | change if isinstance(change, dict) and name in config else change
    path.write_text(json.dumps(config))


def refuse(load, *args):
    """The one line with which something is refused, at once."""
    start = time.monotonic()
    with pytest.raises(DataError) as caught:
        load(*args)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 800
    assert time.monotonic() - start < 60
    return str(caught.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (dict(model_args=dict(depth=50_000)), "too small"),
        (dict(model_args=dict(depth=10**9)), "model_args.depth is 1000000000"),
        (dict(model_args=dict(embed_dim=10**9)), "model_args.embed_dim"),
        (dict(model_args=dict(embed_dim=60_000)), "too small"),
        (dict(model_args=dict(d_state=60_000, depth=60_000)), "too small"),
        (dict(model_args=dict(expand=60_000)), "too small"),
        (dict(model_args=dict(img_size=10**6)), "img_size"),
        (dict(model_args=dict(in_chans=60_000)), "channels|too small|size mismatch|inconsistent"),
        (dict(model_args=dict(depth=-1)), "depth"),
        (dict(model_args=dict(depth=1.5)), "depth"),
        (dict(model_args=dict(depth=[[[1]]])), "cannot be loaded"),
        (dict(model_args=dict(depth=10**400)), "model_args.depth is 1000"),
        (dict(model_args=dict(mixer="exact", sweeps=10**5)), "model_args.sweeps is 100000"),
        (dict(model_args=dict(iterations=10**5, recurrence="iterative")), "model_args.sweeps is 100000"),
        (dict(num_classes=4 * 10**6), "label_names|too small"),
        (dict(num_classes=10**9), "num_classes is 1000000000"),
        (dict(num_classes=4 * 10**6, label_names=None), "too small"),
        (dict(num_classes=-3), "num_classes is -3"),
        (dict(model_args=dict(num_classes=7)), "num_classes is 3"),
        (dict(architecture="vit_giant_patch14_dinov2", model_args={}), "cannot be loaded"),
        (dict(architecture="hf-hub:stranger/model"), "architecture is 'hf-hub:stranger/model'"),
        (dict(architecture=["v2m_nano"]), "expected text"),
        (dict(task=["detection"]), "task is .*expected text"),
        (dict(pretrained_cfg=[]), "expected settings by name"),
        (dict(pretrained_cfg=dict(input_size=[3, 10**6, 10**6])), "input_size"),
        (dict(pretrained_cfg=dict(input_size=[3, 32])), "expected a list of 3"),
        (dict(pretrained_cfg=dict(input_size=[4, 32, 32], mean=[0.5], std=[0.5])), "in_chans is 4"),
        (dict(pretrained_cfg=dict(std=[0.5, 0, 0.5])), "expected positive"),
        (dict(pretrained_cfg=dict(std=[0.5, -0.5, 0.5])), "expected positive"),
        (dict(pretrained_cfg=dict(std=[0.5, float("nan"), 0.5])), "std.1. is nan"),
        (dict(pretrained_cfg=dict(mean=[0.5, float("inf"), 0.5])), "mean.1. is inf"),
        (dict(pretrained_cfg=dict(mean=[0.5, 0.5])), "mean has 2 numbers, expected 3"),
        (dict(pretrained_cfg=dict(crop_pct=1e-6)), "crop_pct"),
        (dict(pretrained_cfg=dict(crop_pct="all")), "crop_pct is 'all', expected a number"),
        (dict(pretrained_cfg=dict(interpolation="magic")), "interpolation is 'magic'"),
        (dict(label_names=["a", "b"]), "label_names has 2 names, but the model has 3 classes"),
        (dict(label_names=["a", "b", "b"]), "label_names has 'b' 2 times"),
        (dict(label_names=["a", "b", 3]), r"label_names.2. is 3, expected text"),
        (dict(label_names=["a", "b", ["c"]]), r"label_names.2. is .*expected text"),
        (
            dict(pretrained_cfg=dict(fixed_input_size=True, input_size=[3, 1, 32])),
            "but model_args.img_size is",
        ),
        (dict(sha256="abc"), "sha256 is 'abc', expected settings"),
    ],
)
def test_settings_that_no_model_has_are_refused(nano, changes, message):
    edit(nano, **changes)
    found = refuse(load_model, nano)
    assert re.search(message, found), found


@pytest.mark.parametrize(
    "content", [b"[]", b'"text"', b"", b"[" * 100_000, b"\xff\xfe", b"9" * 5000, b"null"]
)
def test_files_that_are_no_settings_are_refused(nano, content):
    (nano / model_folder.CONFIG).write_bytes(content)
    assert "the model cannot be loaded (config.json: " in refuse(load_model, nano)


def test_a_configuration_may_not_be_huge_or_a_pipe(nano):
    with (nano / model_folder.CONFIG).open("ab") as file:
        file.truncate(2**30)
    assert "has more than 16,777,216 bytes" in refuse(load_model, nano)
    (nano / model_folder.CONFIG).unlink()
    os.mkfifo(nano / model_folder.CONFIG)
    assert "no model there" in refuse(load_model, nano)


class Payload:
    """What a pickle runs when it is loaded."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (self.path, "w")


@pytest.mark.parametrize("task", ["classification", *TASKS])
def test_no_other_file_is_read(folders, task, tmp_path):
    folder = shutil.copytree(folders[task], tmp_path / "folder")
    planted = tmp_path / "planted"
    other = tmp_path / "other.pth"
    other.write_bytes(pickle.dumps(Payload(str(planted))))
    sources = dict(file=str(other), url=f"file://{other}", hf_hub_id="a/b", custom_load=True, source="url")
    edit(folder, pretrained_cfg=sources)
    load_model(folder)
    for args in (
        dict(checkpoint_path=str(other)),
        dict(pretrained_cfg=sources),
        dict(pretrained_cfg_overlay=sources),
        dict(pretrained=True),
        dict(pretrained_strict=False),
        dict(features_only=True),
    ):
        edit(shutil.copytree(folders[task], tmp_path / next(iter(args))), model_args=args)
        message = refuse(load_model, tmp_path / next(iter(args)))
        assert f"{next(iter(args))!r} is no argument of a model" in message
        for build in (
            lambda args=args: build_classifier("v2m_nano", args, 3, SPEC),
            lambda args=args: FeatureBackbone("v2m_lite_nano", args, (32, 32)),
        ):
            with pytest.raises(ValueError, match="is no argument of a model"):
                build()
    assert not planted.exists()


@pytest.mark.parametrize("task", TASKS)
def test_no_task_builds_more_than_there_are_weights_for(folders, task, tmp_path):
    for number, (changes, message) in enumerate(
        (
            (dict(model_args=dict(depths=[1, 1, 60_000, 1])), "too small"),
            (dict(model_args=dict(embed_dim=[16, 16, 16, 60_000])), "too small"),
            (dict(head=dict(channels=128 * 20_000)), "too small|cannot be loaded"),
            (dict(head=dict(channels="wide")), "head.channels is 'wide'"),
            (dict(head=[]), "expected settings by name"),
            (dict(head=dict(width=3)), "head.width is no setting"),
            (dict(pretrained_cfg=dict(mean=[0.5])), None),
            (dict(pretrained_cfg=dict(std=[0.5, 0.5])), "std has 2"),
            (dict(label_names=None), "cannot be loaded|label_names"),
        )
    ):
        folder = shutil.copytree(folders[task], tmp_path / str(number))
        edit(folder, **changes)
        if message is None or changes == dict(label_names=None):
            load_model(folder)
        else:
            found = refuse(load_model, folder)
            assert re.search(message, found), found


@pytest.mark.parametrize("source", ["classification", *TASKS])
def test_a_run_does_not_take_arguments_of_a_larger_model_than_there_are_weights_for(
    scenes, folders, source, tmp_path
):
    folder = shutil.copytree(folders[source], tmp_path / "folder")
    assert model_folder.resolve_model_args("v2m_lite_nano", {}, str(folder))["depths"] == MODEL_ARGS["depths"]
    edit(folder, model_args=dict(depths=[1, 1, 60_000, 1]))
    assert model_folder.resolve_model_args("v2m_lite_nano", {}, str(folder)) == {}
    if source == "classification":
        with pytest.raises(ValueError, match=r"pretrained: .*too small") as caught:
            make("segmentation", scenes, tmp_path, f"--pretrained={folder}")
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("pre_nms_top_n", [2000, 4_000_000]),
        ("post_nms_top_n", [2000, 4_000_000]),
        ("detections", 4_000_000),
    ],
)
def test_detectors_do_not_take_memory_for_millions_of_boxes(folders, tmp_path, name, value):
    folder = shutil.copytree(folders["detection"], tmp_path / "hostile")
    edit(folder, head={name: value})
    found = refuse(load_model, folder)
    assert f"head.{name} is 4,000,000 in evaluation, expected at most" in found


def header(content, data=b""):
    text = json.dumps(content).encode()
    return struct.pack("<Q", len(text)) + text + data


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff" * 100,
        struct.pack("<Q", 2**63) + b"{}",
        struct.pack("<Q", 2**25) + b"{}",
        header([]),
        header(dict(a=dict(dtype="F32", shape=[2**40, 2**40], data_offsets=[0, 4])), b"1234"),
        header(dict(a=dict(dtype="F32", shape=[-1], data_offsets=[0, 4])), b"1234"),
        header(
            {n: dict(dtype="F32", shape=[1], data_offsets=[0, 4]) for n in "ab"},
            b"1234",
        ),
        header(dict(a=dict(dtype="F8_E4M3", shape=[4], data_offsets=[0, 4])), b"1234"),
        header({str(i): dict(dtype="F32", shape=[0], data_offsets=[0, 0]) for i in range(40_000)}),
    ],
)
def test_files_that_are_no_weights_are_refused(nano, content):
    (nano / model_folder.WEIGHTS).write_bytes(content)
    assert "the model cannot be loaded" in refuse(load_model, nano)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("task", ["classification", "segmentation"])
def test_weights_that_are_no_numbers_are_refused(folders, task, value, tmp_path):
    folder = shutil.copytree(folders[task], tmp_path / "folder")
    edit(folder)
    state = load_file(folder / model_folder.WEIGHTS)
    name = next(name for name in state if name.endswith("stem.0.conv.weight"))
    state[name].view(-1)[3] = value
    save_file(state, folder / model_folder.WEIGHTS)
    assert f"{name} has values that are infinite or NaN" in refuse(load_model, folder)


def test_weights_of_another_type_are_refused(nano):
    state = load_file(nano / model_folder.WEIGHTS)
    save_file(state | {"head.bias": state["head.bias"].to(torch.int64)}, nano / model_folder.WEIGHTS)
    assert "head.bias is of another type than float32" in refuse(load_model, nano)
    save_file({name: value.half() for name, value in state.items()}, nano / model_folder.WEIGHTS)
    assert load_model(nano).evaluator.classes == ["a", "b", "c"]


def test_folders_of_timm_have_its_defaults(nano):
    config = json.loads((nano / model_folder.CONFIG).read_text())
    del config["label_names"]
    for name in ("mean", "std", "crop_pct", "interpolation"):
        del config["pretrained_cfg"][name]
    (nano / model_folder.CONFIG).write_text(json.dumps(config))
    found = load_model(nano)
    assert found.evaluator.classes == ["0", "1", "2"]
    spec = found.evaluator.spec
    assert (spec.mean, spec.crop_pct) == ((0.485, 0.456, 0.406), 0.875)


@pytest.mark.parametrize("task", ["classification", *TASKS])
def test_sums_tell_of_weights_and_settings_that_were_changed(folders, task, tmp_path):
    folder = shutil.copytree(folders[task], tmp_path / "folder")
    load, path = load_model, folder / model_folder.CONFIG
    config = json.loads(path.read_text())
    assert sorted(config[SHA256]) == ["settings", "weights"]
    path.write_text(json.dumps(dict(sorted(config.items())), indent=None))  # other spaces, another order
    load(folder)
    path.write_text(json.dumps(config | dict(label_names=config["label_names"][::-1])))
    assert f"it was changed since it was saved; {model_folder.ACCEPT}" in refuse(load, folder)
    path.write_text(json.dumps(config))
    state = load_file(folder / model_folder.WEIGHTS)
    save_file({name: value + 1 for name, value in state.items()}, folder / model_folder.WEIGHTS)
    message = refuse(load, folder)
    assert "not the weights that config.json was saved with" in message
    assert "v2m train --resume" in message
    assert 'delete "sha256" from config.json' in message
    edit(folder)
    load(folder)


def test_saving_that_is_stopped_between_the_files_is_told_and_made_good(nano, monkeypatch):
    make_classifier(nano, "v2m_nano", NANO)
    put, done = model_folder.put_in_place, []

    def stop(partial, path):
        done.append(path.name)
        if path.name == model_folder.CONFIG:
            raise KeyboardInterrupt
        put(partial, path)

    monkeypatch.setattr(model_folder, "put_in_place", stop)
    torch.manual_seed(1)
    with pytest.raises(KeyboardInterrupt):
        make_classifier(nano, "v2m_nano", NANO)
    assert done == [model_folder.WEIGHTS, model_folder.CONFIG]
    monkeypatch.undo()
    assert "saving was interrupted" in refuse(load_model, nano)
    make_classifier(nano, "v2m_nano", NANO)
    load_model(nano)
