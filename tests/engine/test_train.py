import dataclasses
import json
import math
import shutil
import signal
from contextlib import contextmanager
from datetime import datetime

import pytest
import torch
import yaml
from accelerate.utils import recursively_apply
from rich.console import Console
from safetensors.torch import load_file

from tests.helpers import assert_close, has_compiler
from v2m.data import AugmentConfig
from v2m.engine import resolve as resolve_module
from v2m.engine import train as module
from v2m.engine.learner import Learner
from v2m.engine.run_folder import RunFolder
from v2m.engine.stopping import Interrupted
from v2m.engine.train import NonFiniteLossError, train
from v2m.system.errors import DataError
from v2m.tasks import load_model
from v2m.tasks.classification.config import ClassificationConfig, InputConfig
from v2m.tasks.config import OptimizerConfig, ScheduleConfig

SMALL = dict(
    model_args=dict(embed_dim=16, depth=1, d_state=2, patch_size=4),
    input=InputConfig(img_size=(8, 12)),
    device="cpu",
    batch_size=8,
)


@pytest.fixture
def config(image_folder, tmp_path):
    augment = AugmentConfig(scale=(0.5, 1.0), mixup=0.5)
    return ClassificationConfig(
        str(image_folder), output=str(tmp_path / "run"), epochs=3, augment=augment, ema_decay=0.9, **SMALL
    )


@pytest.fixture
def console():
    with open("/dev/null", "w") as nowhere:
        yield Console(file=nowhere)


class StopError(Exception):
    pass


def stop_after(epochs):
    def on_epoch(run):
        if len(run.read_metrics()) == epochs:
            raise StopError

    return on_epoch


@contextmanager
def interrupt_in(epoch, step):
    """Press Ctrl-C while this step is done."""
    original = Learner._backward

    def signal_then_step(self, parts, place):
        if (place.epoch, place.step + 1) == (epoch, step):
            signal.raise_signal(signal.SIGINT)
        return original(self, parts, place)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Learner, "_backward", signal_then_step)
        yield


def saved_state(run):
    return run.find_checkpoint(warn=pytest.fail).state


def test_a_run_leaves_everything_in_its_folder(config, console, image_folder):
    result = train(config, console)
    run = RunFolder(config.output)
    assert sorted(path.name for path in run.path.iterdir()) == [
        "best", "checkpoints", "config.json", "metrics.jsonl", "model.safetensors", "train.yaml"
    ]  # fmt: skip
    rows = [json.loads(line) for line in run.metrics.read_text().splitlines()]
    assert [row["epoch"] for row in rows] == [1, 2, 3]
    assert all(math.isfinite(value) for row in rows for value in row.values())
    assert rows[-1]["val_top1"] == result.evaluation.scores.top1
    assert rows[-1]["lr"] == pytest.approx(config.schedule.min_lr, abs=1e-6)

    saved = load_model(run.path)
    assert saved.evaluator.classes == ["blue", "green", "red"]
    assert saved.evaluator.spec.img_size == (8, 12)
    resolved = yaml.safe_load(run.config.read_text())
    assert (resolved["data"], resolved["augment"]["mixup"]) == (str(image_folder), 0.5)
    assert resolved["input"]["mean"] == list(saved.evaluator.spec.mean)

    state = saved_state(run)
    assert torch.equal(state["ema"]["head.weight"], load_file(run.path / "model.safetensors")["head.weight"])
    assert not torch.equal(state["ema"]["head.weight"], state["model"]["head.weight"])


def test_training_learns(image_folder, tmp_path, console):
    config = ClassificationConfig(
        str(image_folder),
        output=str(tmp_path / "run"),
        epochs=12,
        augment=AugmentConfig(scale=(0.8, 1.0)),
        optimizer=OptimizerConfig(lr=1e-2),
        ema_decay=0,
        **SMALL,
    )
    assert train(config, console).evaluation.scores.top1 == 1.0


def test_a_resumed_run_ends_with_the_same_weights(config, console, tmp_path):
    train(config, console)
    parted = dataclasses.replace(config, output=str(tmp_path / "parted"))
    with pytest.raises(StopError):
        train(parted, console, on_epoch=stop_after(2))
    train(parted, console, resume=True)
    one, other = (load_file(RunFolder(c.output).path / "model.safetensors") for c in (config, parted))
    for name, value in one.items():
        assert torch.equal(value, other[name]), name
    same = ("epoch", "train_loss", "val_loss")
    rows = [[[r[k] for k in same] for r in RunFolder(c.output).read_metrics()] for c in (config, parted)]
    assert rows[0] == rows[1]


def test_resuming_a_finished_run_only_evaluates(config, console):
    first = train(config, console)
    weights = (RunFolder(config.output).path / "model.safetensors").read_bytes()
    assert train(config, console, resume=True).evaluation.scores.top1 == first.evaluation.scores.top1
    assert (RunFolder(config.output).path / "model.safetensors").read_bytes() == weights


def test_a_request_to_stop_saves_in_the_middle_of_an_epoch(config, console):
    message = r"epoch 2, step 2 of 3; continue with: v2m train --resume .*run"
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(Interrupted, match=message), interrupt_in(epoch=2, step=2):
        train(config, console)
    assert signal.getsignal(signal.SIGINT) is before
    train(config, console, resume=True)
    assert [row["epoch"] for row in RunFolder(config.output).read_metrics()] == [1, 2, 3]


def test_a_stop_at_the_end_of_an_epoch_keeps_its_sums(config, console):
    train(dataclasses.replace(config, output=config.output + "-whole"), console)
    with pytest.raises(Interrupted, match="epoch 2, step 3 of 3"), interrupt_in(epoch=2, step=3):
        train(config, console)
    train(config, console, resume=True)
    rows, whole = (RunFolder(path).read_metrics() for path in (config.output, config.output + "-whole"))
    for key in ("train_loss", "train_top1", "val_loss", "lr"):
        assert [row[key] for row in rows] == [row[key] for row in whole]


def test_changed_settings_count_and_are_recorded(config, console, image_folder):
    train(dataclasses.replace(config, epochs=1), console)
    run = RunFolder(config.output)
    changed = dataclasses.replace(config, epochs=2, optimizer=OptimizerConfig(weight_decay=0.75))
    train(changed, console, resume=True)
    assert yaml.safe_load(run.config.read_text())["epochs"] == 2
    assert yaml.safe_load(run.config.read_text())["optimizer"]["weight_decay"] == 0.75


def test_data_is_recorded_by_its_whole_path(config, console, image_folder, monkeypatch):
    monkeypatch.chdir(image_folder)
    train(dataclasses.replace(config, data=".", epochs=1, output=None), console)
    (folder,) = (image_folder / "runs").iterdir()
    assert folder.name.startswith("images-v2m_nano-")
    assert yaml.safe_load(RunFolder(folder).config.read_text())["data"] == str(image_folder)


def test_new_folders_get_names_of_their_own(tmp_path, monkeypatch):
    class Noon(datetime):
        @classmethod
        def now(cls):
            return cls(2024, 1, 2, 12)

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(resolve_module, "datetime", Noon)
    names = []
    for _ in range(3):
        names.append(resolve_module._new_folder("digits-nano"))
        (tmp_path / names[-1]).mkdir(parents=True)
    assert names == [f"runs/digits-nano-20240102-120000{end}" for end in ("", "-2", "-3")]


def test_losses_that_stay_infinite_stop_and_keep_the_last_good_checkpoint(config, console):
    with pytest.raises(StopError):
        train(config, console, on_epoch=stop_after(1))
    weights = (RunFolder(config.output).path / "model.safetensors").read_bytes()
    wild = dataclasses.replace(
        config, optimizer=OptimizerConfig(lr=1e30, clip_grad=None), epochs=9, skip_limit=3
    )
    with pytest.raises(
        NonFiniteLossError,
        match=r"in 4 steps in a row, until epoch 3, step . .*where it began: the .* of .*; kept: .*run",
    ):
        train(wild, console, resume=True)
    assert (RunFolder(config.output).path / "model.safetensors").read_bytes() == weights
    assert saved_state(RunFolder(config.output))["epoch"] == 2


def test_an_epoch_of_skipped_steps_stops(config, console):
    with (
        poisoned({(2, step) for step in (1, 2, 3)}),
        pytest.raises(
            NonFiniteLossError, match=r"in 3 steps in a row, until epoch 2, step 3.* began: the input images"
        ),
    ):
        train(config, console)


def test_an_occupied_folder_is_left_alone(config, console, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "precious").write_text("data")
    with pytest.raises(FileExistsError, match=r"is not empty, choose another folder .*v2m train --resume"):
        train(config, console)
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["precious"]


def test_resuming_needs_a_state_that_fits(config, console):
    with pytest.raises(FileNotFoundError, match="nothing was saved there yet"):
        train(config, console, resume=True)
    train(dataclasses.replace(config, epochs=1), console)
    other = dataclasses.replace(config, model_args=SMALL["model_args"] | dict(depth=2))
    with pytest.raises(ValueError, match=r"does not fit this configuration \(Error.*blocks\.1"):
        train(other, console, resume=True)
    without_average = dataclasses.replace(config, epochs=1, ema_decay=0, output=config.output + "-plain")
    train(without_average, console)
    with pytest.raises(ValueError, match="does not fit this configuration"):
        train(dataclasses.replace(without_average, ema_decay=0.9), console, resume=True)
    for path in RunFolder(config.output).path.glob("checkpoints/*.pt"):
        path.write_bytes(b"damaged")
    with pytest.raises(OSError, match=r"no checkpoint in .* is whole"):
        train(config, console, resume=True)


def test_a_full_disk_is_named_and_the_old_file_kept(tmp_path, monkeypatch):
    run = RunFolder(tmp_path / "run")
    run.create()
    run.write_checkpoint(dict(epoch=1, step=0), keep_last=2)

    def full(state, file):
        file.write(b"half")
        raise RuntimeError("PytorchStreamWriter failed writing file: No space left on device\nmore")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(
        OSError, match=r"could not be saved, with .* MB free on the disk \(.*No space left on device\); what"
    ):
        run.write_checkpoint(dict(epoch=2, step=0), keep_last=2)
    assert saved_state(run) == dict(epoch=1, step=0)
    assert len(list(run.path.glob("checkpoints/*"))) == 1


def test_unreadable_images_are_named_and_do_not_count(config, console, image_folder):
    for image in ("train/red/3.png", "train/blue/0.png", "val/green/1.png"):
        (image_folder / image).write_bytes(b"\x89PNG\r\n")
    result = train(config, console)
    run = RunFolder(config.output)
    found = {(row["split"], row["image"].removeprefix(f"{image_folder}/")) for row in run.read_unreadable()}
    assert found == {
        ("train", "train/red/3.png"), ("train", "train/blue/0.png"), ("val", "val/green/1.png")
    }  # fmt: skip
    assert all(row["reason"] for row in run.read_unreadable())
    assert result.evaluation.scores.images == 11
    assert result.evaluation.results.indices.tolist() == [i for i in range(12) if i != 5]
    assert [row["val_images"] for row in run.read_metrics()] == [11, 11, 11]
    assert run.read_metrics()[-1]["unreadable"] == 3


def test_a_dataset_of_unreadable_images_is_an_error(config, console, image_folder):
    for image in image_folder.glob("train/*/*.png"):
        image.write_bytes(b"")
    with pytest.raises(DataError, match=r"20 images in a row cannot be used, from .*\.png .* to .*\.png"):
        train(config, console)


def test_classes_that_changed_are_named(config, console, image_folder):
    train(dataclasses.replace(config, epochs=1), console)
    for split in ("train", "val"):
        (image_folder / split / "red").rename(image_folder / split / "crimson")
    with pytest.raises(DataError, match=r"not those it was trained on \(gone: red; new: crimson\)"):
        train(config, console, resume=True)


def test_the_best_weights_are_kept_apart(config, console, monkeypatch):
    """Of four epochs with these accuracies the fourth one's: it equals the second, and has a lower loss."""
    accuracies = iter([0.25, 0.5, 0.25, 0.5])
    original = module.evaluate

    def evaluate(*args):
        found = original(*args)
        return dataclasses.replace(found, scores=dataclasses.replace(found.scores, top1=next(accuracies)))

    weights = []

    def on_epoch(run):
        weights.append(load_file(run.path / "model.safetensors")["head.weight"])

    monkeypatch.setattr(module, "evaluate", evaluate)
    train(dataclasses.replace(config, epochs=4), console, on_epoch=on_epoch)
    best = load_file(RunFolder(config.output).best / "model.safetensors")["head.weight"]
    assert [best.equal(value) for value in weights] == [False, False, False, True]
    assert load_model(RunFolder(config.output).best).evaluator.classes == ["blue", "green", "red"]


def test_a_damaged_checkpoint_costs_the_time_since_the_one_before(config, console, tmp_path):
    train(config, console)
    parted = dataclasses.replace(config, output=str(tmp_path / "parted"))
    with pytest.raises(StopError):
        train(parted, console, on_epoch=stop_after(2))
    last = max(RunFolder(parted.output).path.glob("checkpoints/*.pt"))
    last.write_bytes(last.read_bytes()[:-1])
    train(parted, console, resume=True)
    one, other = (load_file(RunFolder(c.output).path / "model.safetensors") for c in (config, parted))
    assert all(value.equal(other[name]) for name, value in one.items())


@contextmanager
def poisoned(steps):
    """Make the images of these steps (epoch, step) infinite."""
    original = Learner._seed, Learner._inputs
    places = []

    def seed(self, place):
        places.append((place.epoch, place.step + 1))
        original[0](self, place)

    def inputs(self, batch):
        targets, images, mixed_targets = original[1](self, batch)
        if places[-1] in steps:
            images = recursively_apply(lambda image: image * math.inf, images)
        return targets, images, mixed_targets

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Learner, "_seed", seed)
        patch.setattr(Learner, "_inputs", inputs)
        yield


def test_a_step_that_is_not_finite_is_skipped_and_counted(config, console):
    with poisoned({(1, 2), (2, 1), (2, 3)}):
        train(config, console)
    rows = RunFolder(config.output).read_metrics()
    assert [row["skipped"] for row in rows] == [1, 2, 0]
    assert all(math.isfinite(value) for row in rows for value in row.values())


def test_no_checkpoint_is_written_while_steps_are_skipped(config, console):
    with poisoned({(2, 3)}), pytest.raises(StopError):
        train(config, console, on_epoch=stop_after(1))
    with (
        poisoned({(2, 3)}),
        interrupt_in(epoch=2, step=3),
        pytest.raises(Interrupted, match="without saving"),
    ):
        train(config, console, resume=True)
    state = saved_state(RunFolder(config.output))
    assert (state["epoch"], state["step"]) == (2, 0)


def test_a_batch_larger_than_the_data_is_the_data(config, console):
    result = train(dataclasses.replace(config, batch_size=1000, epochs=1), console)
    assert result.evaluation.scores.images == 12


def test_one_class_is_too_few(config, console, image_folder):
    for split in ("train", "val"):
        for name in ("blue", "green"):
            shutil.rmtree(image_folder / split / name)
    with pytest.raises(DataError, match="has the class red only, expected 2"):
        train(config, console)


@pytest.mark.parametrize(
    "change",
    [dict(precision="bf16"), dict(precision="fp16"), dict(grad_checkpointing=True), dict(channels_last=True)],
    ids=str,
)
def test_ways_to_save_time_or_memory_train_nearly_the_same(config, console, change):
    plain = train(dataclasses.replace(config, epochs=1, output=config.output + "-plain"), console)
    result = train(dataclasses.replace(config, epochs=1, **change), console)
    difference = (result.evaluation.results.logits - plain.evaluation.results.logits).abs().max()
    assert (
        difference <= (0.05 if "precision" in change else 1e-4) * plain.evaluation.results.logits.abs().max()
    )
    assert load_model(RunFolder(config.output).path).evaluator.classes == ["blue", "green", "red"]


@pytest.mark.skipif(not has_compiler, reason="torch.compile needs a compiler")
@pytest.mark.filterwarnings("ignore")  # of torch.compile's own
def test_a_compiled_model_trains_nearly_the_same(config, console):
    plain = train(dataclasses.replace(config, epochs=1, output=config.output + "-plain"), console)
    result = train(dataclasses.replace(config, epochs=1, compile=True), console)
    assert_close(result.evaluation.results.logits, plain.evaluation.results.logits, "compiled")


def test_nothing_is_divided_over_one_process(config, console):
    with pytest.raises(ValueError, match="fsdp: there is one process only"):
        train(dataclasses.replace(config, fsdp=True), console)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (dict(epochs=0), "epochs is 0"),
        (dict(batch_size=0), "batch_size is 0"),
        (dict(batch_size=7, augment=AugmentConfig(mixup=0.5)), "batch_size is 7, expected an even number"),
        (dict(schedule=ScheduleConfig(warmup=5)), "schedule.warmup is 5"),
        (dict(ema_decay=1.0), "ema_decay is 1.0"),
        (dict(optimizer=OptimizerConfig(lr=0.0)), "optimizer.lr is 0.0"),
    ],
)
def test_settings_out_of_range_are_named(change, message):
    with pytest.raises(ValueError, match=message):
        ClassificationConfig("digits", **change)


def test_an_unknown_optimiser_is_answered_with_the_nearest(config, console):
    with pytest.raises(ValueError, match="'adamv' is no optimiser, nearest: adam"):
        train(dataclasses.replace(config, optimizer=OptimizerConfig("adamv")), console)
