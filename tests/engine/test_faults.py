"""What goes wrong with disks, files and other processes, and what is kept."""

import dataclasses
import errno
import io
import json
import os
import subprocess
import sys

import pytest
import torch
from rich.console import Console

from tests.engine.test_train import poisoned
from v2m.engine.checkpoint import Checkpoints, read_checkpoint
from v2m.engine.run_folder import RunFolder
from v2m.engine.train import NonFiniteLossError, train
from v2m.system.errors import DataError
from v2m.system.files import put_in_place, replace_file
from v2m.tasks import load_model
from v2m.tasks.classification.config import ClassificationConfig, InputConfig
from v2m.tasks.config import OptimizerConfig, ScheduleConfig


@pytest.fixture
def config(image_folder, tmp_path):
    return ClassificationConfig(
        str(image_folder),
        model_args=dict(embed_dim=16, depth=1, d_state=2, patch_size=4),
        input=InputConfig(img_size=(8, 12)),
        output=str(tmp_path / "run"),
        device="cpu",
        batch_size=8,
        epochs=1,
    )


@pytest.fixture
def console():
    return Console(quiet=True)


def test_a_file_that_cannot_be_written_is_named_and_the_old_one_kept(tmp_path):
    path = tmp_path / "picture.png"
    path.write_text("old")

    def write(partial):
        partial.write_text("half")
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(OSError, match=r"No space left on device: '.*/picture.png'"):
        replace_file(path, write)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_files_are_on_the_disk_before_they_are_in_place(tmp_path, monkeypatch):
    done = []
    monkeypatch.setattr("os.fsync", lambda number: done.append("fsync"))
    monkeypatch.setattr("os.replace", lambda old, new: done.append("replace"))
    (tmp_path / "partial").write_text("new")
    put_in_place(tmp_path / "partial", tmp_path / "file")
    assert done == ["fsync", "replace"]


def test_a_full_disk_is_told_where_pytorch_hides_it(tmp_path, monkeypatch):
    run = RunFolder(tmp_path / "run")
    run.create()

    def full(state, file):
        file.write(b"half")
        try:
            raise OSError(errno.ENOSPC, "No space left on device")
        except OSError:
            raise RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 1 vs 0")  # noqa: B904

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(
        OSError, match=r"checkpoints could not be saved, .* \(No space left on device\); what"
    ):
        run.write_checkpoint(dict(epoch=1, step=0), keep_last=2)
    assert not list((run.path / "checkpoints").iterdir())


def test_damaged_checkpoints_never_let_a_new_run_begin_in_their_place(config, console):
    train(config, console)
    run = RunFolder(config.output)
    for path in run.path.glob("checkpoints/*.pt"):
        path.write_bytes(b"damaged")
    for _ in range(2):  # the second time none is left under its own name
        with pytest.raises(OSError, match=r"no checkpoint in .* is whole; .* --pretrained .*run"):
            train(config, console, resume=True)
    assert run.has_checkpoint
    with pytest.raises(FileExistsError, match="is not empty"):
        train(config, console)
    assert load_model(run.path).evaluator.classes == ["blue", "green", "red"]


@pytest.fixture
def tampered(config, console):
    """Saves the state of a trained run again, changed, as a later checkpoint."""
    train(config, console)
    checkpoints = Checkpoints(RunFolder(config.output).checkpoints)
    (before,) = checkpoints.paths
    return lambda change: (before, checkpoints.save(9, 0, change(read_checkpoint(before))))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda state: {}, "holds no epoch"),
        (lambda state: [1], "holds no state of a run"),
        (lambda state: state["model"]["head.bias"], "holds no state of a run"),
        (lambda state: state | dict(model=[]), "holds model of type list"),
        (lambda state: state | dict(epoch=torch.tensor(1)), "holds epoch of type Tensor"),
        (lambda state: {key: state[key] for key in state if key != "history"}, "holds no history"),
        (lambda state: state | dict(epoch=0), "holds a place in the run, classes or metrics that cannot be"),
        (lambda state: state | dict(step=-1), "holds a place in the run, "),
        (lambda state: state | dict(classes=[1]), "holds a place in the run, "),
        (lambda state: state | dict(sums={}), "holds a place in the run, "),
        (lambda state: state | dict(history=[1]), "holds a place in the run, "),
        (lambda state: state | dict(history=[dict(epoch=[])]), "holds a place in the run, "),
    ],
)
def test_a_checkpoint_that_holds_no_run_is_told_and_the_one_before_is_used(
    config, console, tampered, change, reason
):
    before, last = tampered(change)
    out = Console(file=io.StringIO(), width=1000)
    train(dataclasses.replace(config, epochs=2), out, resume=True)
    assert f"warning: {last} is damaged, it {reason}" in out.file.getvalue()
    assert f"going on from the one before, {before.name}" in out.file.getvalue()
    assert [row["epoch"] for row in RunFolder(config.output).read_metrics()] == [1, 2]


def moments(change):
    return lambda state: state | dict(optimizer={i: change(v) for i, v in state["optimizer"].items()})


@pytest.mark.parametrize(
    "change",
    [
        lambda state: state | dict(model=state["model"] | {"head.bias": torch.zeros(7)}),
        lambda state: state | dict(model=state["model"] | {"head.bias": "text"}),
        lambda state: state | dict(model=state["model"] | {1: torch.zeros(3)}),
        lambda state: state | dict(ema=dict(weights=torch.zeros(3))),
        lambda state: state | dict(optimizer={1000: dict(exp_avg=torch.zeros(1))}),
        lambda state: state | dict(optimizer={0: 1}),
        moments(lambda value: value | dict(exp_avg=torch.zeros(7))),
        moments(lambda value: value | dict(exp_avg="text")),
        moments(lambda value: value | dict(step="text")),
    ],
)
def test_a_checkpoint_that_does_not_fit_is_told_in_a_line(config, console, tampered, change):
    tampered(change)
    with pytest.raises(ValueError, match=r"^resume: .*fit") as error:
        train(dataclasses.replace(config, epochs=2), console, resume=True)
    assert "\n" not in str(error.value)


def test_one_run_at_a_time_in_a_folder(config, console):
    """The lock is of this process, so another one must ask."""
    run = RunFolder(config.output)
    run.create()
    code = (
        "from v2m.engine.run_folder import RunFolder\n"
        f"with RunFolder({config.output!r}).locked(): print('locked')"
    )
    with run.locked():
        other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        assert f"OSError: output: another process is training in {run.path}" in other.stderr
    again = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert again.stdout == "locked\n"
    assert not list(run.path.iterdir())


def test_what_a_killed_process_left_is_cleared_away(config, console):
    run = RunFolder(config.output)
    run.create()
    run.write_config(config)  # killed before anything was saved, in the middle of the weights
    (run.path / ".saving-abc").mkdir()
    (run.path / ".saving-abc" / "model.safetensors").write_bytes(b"half")
    train(config, console)
    assert not [path for path in run.path.iterdir() if path.name.startswith(".")]


def test_a_run_that_is_done_writes_lost_files_again(config, console):
    train(config, console)
    run = RunFolder(config.output)
    rows, weights = run.read_metrics(), (run.path / "model.safetensors").read_bytes()
    run.metrics.write_text('{"epoch')
    (run.path / "model.safetensors").unlink()
    with pytest.raises(ValueError, match=r"metrics.jsonl is damaged in line 1; v2m train --resume .* again"):
        run.read_metrics()
    train(config, console, resume=True)
    assert run.read_metrics() == rows
    assert (run.path / "model.safetensors").read_bytes() == weights


def test_a_damaged_list_of_unreadable_images_does_not_stop_a_run(config, console, image_folder):
    (image_folder / "train" / "red" / "3.png").write_bytes(b"")
    train(config, console)
    run = RunFolder(config.output)
    (row,) = run.read_unreadable()
    run.unreadable.write_text(f'{{"spl\n[1]\n{json.dumps(row)}\n')
    train(dataclasses.replace(config, epochs=2), console, resume=True)
    assert run.read_unreadable() == [row]


@pytest.mark.parametrize(
    ("text", "reason"),
    [("[1, {", r"line \d: "), ("", "no settings"), ("hello", "no settings"), ("epochs: 3", "no data")],
)
def test_a_damaged_configuration_is_named(tmp_path, text, reason):
    run = RunFolder(tmp_path)
    run.config.write_text(text)
    with pytest.raises(ValueError, match=rf"train.yaml is damaged \({reason}.*--print_config"):
        run.read_config()


def wild(config):
    return dataclasses.replace(
        config, optimizer=OptimizerConfig(lr=1e30, clip_grad=None), schedule=ScheduleConfig(warmup=0.4)
    )


def test_weights_that_give_no_finite_loss_are_not_saved_at_the_end(config, console):
    seen = []
    with pytest.raises(
        NonFiniteLossError, match=r"validation images is nan after the last epoch; kept: nothing"
    ):
        train(wild(config), console, on_epoch=seen.append)
    assert not seen
    assert [path.name for path in RunFolder(config.output).path.iterdir()] == ["train.yaml"]


def test_a_last_step_that_is_skipped_does_not_cost_the_epoch(config, console):
    with poisoned({(1, 3)}):
        train(config, console)
    run = RunFolder(config.output)
    assert [(row["epoch"], row["skipped"]) for row in run.read_metrics()] == [(1, 1)]
    assert run.has_checkpoint
    assert (run.path / "model.safetensors").is_file()


def test_one_class_is_too_few(config, console, image_folder):
    for folder in (*image_folder.glob("*/green"), *image_folder.glob("*/blue")):
        folder.rename(image_folder / f"{folder.parent.name}-{folder.name}")
    with pytest.raises(DataError, match="has the class red only, expected 2"):
        train(config, console)


@pytest.mark.parametrize("name", ["data", "output"])
def test_paths_that_are_no_text_are_refused_before_anything_is_written(config, console, name):
    with pytest.raises(ValueError, match=rf"{name}: caf\\udce9 is not UTF-8"):
        train(dataclasses.replace(config, **{name: "caf\udce9"}), console)
    assert not RunFolder(config.output).path.exists()


def test_files_of_a_run_that_never_end_or_hold_something_else_are_refused(tmp_path):
    run = RunFolder(tmp_path)
    run.metrics.write_text('{"epoch": 1}\n{"epoch": {}}\n')
    with pytest.raises(ValueError, match="damaged in line 2"):
        run.read_metrics()
    run.unreadable.write_text('{"split": [], "image": "x", "reason": "y"}\n' + "[" * 100_000)
    assert run.read_unreadable() == []
    if hasattr(os, "mkfifo"):
        for path in (run.metrics, run.unreadable):
            path.unlink()
            os.mkfifo(path)
        for read in (run.read_metrics, run.read_unreadable):
            with pytest.raises(ValueError, match="no regular file"):
                read()
