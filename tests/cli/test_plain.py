import json
import os
import sys

import pytest
import yaml

from tests.cli.test_cli import fails
from v2m.cli import main
from v2m.cli.plain import GROUPS
from v2m.engine.run_folder import RunFolder
from v2m.tasks.classification.config import ClassificationConfig

PRINT = ("train", "--data", "digits", "--print_config")


@pytest.fixture
def planted(tmp_path, monkeypatch):
    """A module that leaves a file when it is imported; the file."""
    trace = tmp_path / "imported"
    (tmp_path / "planted_here.py").write_text(f"open({str(trace)!r}, 'w')\nclass Thing: pass\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(sys, "argv", ["v2m"])
    yield trace
    sys.modules.pop("planted_here", None)


def printed(capsys, *arguments):
    with pytest.raises(SystemExit, match="0"):
        main([*PRINT, *arguments])
    return yaml.safe_load(capsys.readouterr().out)


THING = "{class_path: planted_here.Thing, init_args: {}}"
SETTINGS = [
    f"model_args: {{depth: {THING}}}",
    f"model_args: {{depth: [1, {THING}]}}",
    f"model_args: {{a: {{b: {THING}}}}}",
    f"model_args: {THING}",
    f"model_args: '{{depth: {THING}}}'",
    f"model_args: {{depth: '{THING}'}}",
    r'model_args: {depth: "{\"class\\x5fpath\": planted_here.Thing}"}',
    "model_args: {depth.class_path: planted_here.Thing}",
    "model_args.depth.class_path: planted_here.Thing",
    f"<<: {{model_args: {{depth: {THING}}}}}",
    f"epochs: {THING}",
    f"pretrained: {THING}",
    f"trackers: [{THING}]",
    "optimizer: planted_here.Thing",
    f"optimizer: {THING}",
    "optimizer.class_path: planted_here.Thing",
    "input: [planted_here.Thing]",
    "optimizer: other.yaml",
    "config: other.yaml",
    "resume: run",
]


@pytest.mark.parametrize("text", SETTINGS)
def test_a_configuration_neither_imports_nor_builds(planted, tmp_path, monkeypatch, capsys, text):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "other.yaml").write_text(f"model_args: {{depth: {THING}}}")
    file = tmp_path / "settings.yaml"
    file.write_text(text)
    second = ["--config", str(tmp_path / "good.yaml")]
    (tmp_path / "good.yaml").write_text("epochs: 1")
    for more in ([], second):
        code, error = fails(capsys, "train", "--data", "digits", "--config", str(file), *more)
        assert code == 2
        assert error.startswith(f"v2m: error: --config: {file} holds no settings (")
    assert not planted.exists()


@pytest.mark.parametrize("text", SETTINGS)
def test_a_run_folder_neither_imports_nor_builds(planted, tmp_path, capsys, text):
    run = RunFolder(tmp_path / "run")
    run.create()
    run.write_config(ClassificationConfig("digits"))
    saved = yaml.safe_load(run.config.read_text())
    rest = yaml.safe_dump({k: v for k, v in saved.items() if k == "data" or k not in text})
    run.config.write_text(f"{rest}\n{text}\n")
    code, error = fails(capsys, "train", "--resume", str(run.path))
    assert code == 2
    assert "holds no settings" in error
    assert not planted.exists()


@pytest.mark.parametrize(
    "arguments",
    [
        ["--model_args", f"{{depth: {THING}}}"],
        [f"--model_args={THING}"],
        ["--model_args.depth", THING],
        [f"--model_args.depth={THING}"],
        ["--model_args.a.b", f"[{THING}]"],
        ["--model_args.class_path", "planted_here.Thing"],
        ["--model_args.depth.class_path", "planted_here.Thing"],
        ["--model_args", "{depth: 3}", "--model_args.depth.init_args", "{}"],
        ["--optimizer", "planted_here.Thing"],
        ["--optimizer", THING],
        [f"--optimizer={THING}"],
        ["--optimizer.class_path", "planted_here.Thing"],
        ["--optimizer", "other.yaml"],
        ["--optimizer", "nested.yaml"],
        ["--input.mean", f"[{THING}]"],
    ],
)
def test_options_neither_import_nor_build(planted, tmp_path, monkeypatch, capsys, arguments):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "other.yaml").write_text(THING)
    (tmp_path / "nested.yaml").write_text(f"lr: {THING}")
    code, error = fails(capsys, "train", "--data", "digits", *arguments)
    assert code == 2
    assert "names code to run" in error or "neither settings nor a file" in error
    assert not planted.exists()


def test_options_do_not_come_from_the_environment(planted, monkeypatch, capsys):
    monkeypatch.setenv("JSONARGPARSE_DEFAULT_ENV", "true")
    monkeypatch.setenv("V2M_TRAIN__MODEL_ARGS", f"{{depth: {THING}}}")
    monkeypatch.setenv("V2M_TRAIN__OPTIMIZER", "planted_here.Thing")
    monkeypatch.setenv("V2M_TRAIN__CONFIG", THING)
    assert printed(capsys)["model_args"] == {}
    assert not planted.exists()


def test_arguments_of_models_come_in_every_spelling(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    plain = dict(depth=3, a=None, b=[1, "x", {"y": 2e-3}], c={"d": {"e": False}}, s="abc")
    file = tmp_path / "settings.yaml"
    file.write_text(yaml.safe_dump(dict(model_args=plain)))
    assert printed(capsys, "--model_args", json.dumps(plain))["model_args"] == plain
    assert printed(capsys, "--model_args", yaml.safe_dump(plain))["model_args"] == plain
    assert printed(capsys, "--config", str(file))["model_args"] == plain
    options = [part for k, v in plain.items() for part in (f"--model_args.{k}", json.dumps(v))]
    assert printed(capsys, *options[:-1], "abc")["model_args"] == plain
    more = printed(capsys, "--config", str(file), "--model_args.depth", "4", "--model_args.f.g", "[null]")
    assert more["model_args"] == plain | dict(depth=4, f={"g": [None]})


def test_a_printed_configuration_prints_the_same_again(tmp_path, capsys):
    first = printed(
        capsys, "--model_args", "{depth: 3, a: [1, null, {b: 1e-3}], c: '1'}", "--optimizer.lr", "1e-3"
    )
    file = tmp_path / "settings.yaml"
    file.write_text(yaml.safe_dump(first))
    assert printed(capsys, "--config", str(file)) == first


def test_groups_are_mappings_or_files(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "sgd.yaml").write_text("{name: sgd, lr: 1e-3, clip_grad: null}")
    sgd = dict(name="sgd", lr=1e-3, clip_grad=None)
    assert sgd.items() <= printed(capsys, "--optimizer", "sgd.yaml")["optimizer"].items()
    assert sgd.items() <= printed(capsys, f"--optimizer={json.dumps(sgd)}")["optimizer"].items()
    later = printed(capsys, "--optimizer.lr=5", "--optimizer", "sgd.yaml", "--optimizer.name", "lion")[
        "optimizer"
    ]
    assert (later["name"], later["lr"]) == ("lion", 1e-3)
    assert printed(capsys, "--input", "{img_size: [8, 16]}")["input"]["img_size"] == [8, 16]
    assert {"optimizer", "schedule", "head", "inference", "distill"} < GROUPS


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
@pytest.mark.parametrize("option", ["--config", "--optimizer"])
def test_a_pipe_is_no_configuration(tmp_path, capsys, option):
    os.mkfifo(tmp_path / "pipe")
    code, error = fails(capsys, "train", "--data", "digits", option, str(tmp_path / "pipe"))
    assert code == 2
    assert "no regular file" in error


@pytest.mark.parametrize(
    "text",
    [
        "a: " + "[" * 100_000,
        "epochs: '" + "[" * 100_000 + "'",
        "input: {mean: ['" + "[" * 100_000 + "', 1, 2]}",
        "epochs: '&a [*a]'",
        "epochs: ['&a [*a]']",
        "epochs: '!!timestamp x'",
        "epochs: '!!bool x'",
        "epochs: " + "9" * 5000,
        "input: {img_size: [" + "9" * 900 + ", 1]}",
        "model_args: &a {b: *a}",
        "1: 2",
        "null: 2",
        "epochs: .nan",
        "optimizer: {lr: .nan}",
        "optimizer: 3",
        "optimizer:",
        "epochs: null",
        "distill: {weight: null}",
        "model_args: null",
        "loss: {label_smoothing: 1.5}",
        "augment: {mixup: .nan}",
        "model_args: {checkpoint_path: weights.pth}",
        "'model_args.a.b': 1",
        "'config.x': 1",
        'data: "\\ud800"',
        'data: "\\e[31m"',
        "task: [1]",
        "task: nothing",
        "recipe: {a: 1}",
        "seed: -1",
    ],
)
def test_odd_configurations_get_one_line(tmp_path, capsys, text):
    file = tmp_path / "settings.yaml"
    file.write_text(f"data: {tmp_path}\n" * (not text.startswith("data")) + text)
    code, error = fails(capsys, "train", "--config", str(file))
    assert code in (1, 2)
    assert len(error) < 1500


@pytest.mark.parametrize(
    "name", ["checkpoint_path", "pretrained", "pretrained_cfg", "pretrained_cfg_overlay"]
)
def test_arguments_of_models_do_not_say_where_weights_come_from(tmp_path, capsys, name):
    code, error = fails(capsys, "train", "--data", "digits", f"--model_args.{name}", str(tmp_path / "file"))
    assert code == 1
    assert f"model_args: {name!r} is no argument of a model; weights come by --pretrained" in error


def test_a_setting_of_null_is_named(tmp_path, capsys):
    file = tmp_path / "settings.yaml"
    file.write_text("{data: digits, distill: {weight: null}}")
    code, error = fails(capsys, "train", "--config", str(file))
    assert (code, error) == (2, "v2m: error: --distill.weight is null, expected a value\n")
