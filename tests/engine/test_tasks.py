"""What the engine promises for classification, for detection and segmentation: one engine trains them all."""

import dataclasses
import math
import signal
from contextlib import contextmanager
from functools import partialmethod
from pathlib import Path

import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file
from torch import nn

from tests.engine.test_resume import assert_same
from tests.engine.test_train import StopError, poisoned, stop_after
from tests.helpers import has_compiler
from tests.scenes import TASKS, configure, make_scenes, opened_task
from v2m.engine.learner import Learner
from v2m.engine.optimizer import build_optimizer, build_schedule
from v2m.engine.run_folder import RunFolder
from v2m.engine.stopping import Interrupted
from v2m.engine.train import NonFiniteLossError, train
from v2m.system.errors import DataError
from v2m.tasks.config import OptimizerConfig, ScheduleConfig

RANDOM = dict(
    detection=["--augment.jitter=[0.5, 1.5]", "--augment.crop_size=64"],
    segmentation=["--augment.photometric=1", "--head.dropout=0.3"],
)
"""Everything that is random, on."""
SMOOTH = ["--epochs=1", "--optimizer.name=sgd", "--optimizer.lr=0.02"]
"""Steps as small as the gradient."""
CERTAIN = dict(detection=[], segmentation=["--head.dropout=0", "--loss.auxiliary=0"])
"""No dropout: what is dropped depends on the layout in memory."""
TIMES = ("images_per_s", "seconds", "data_wait")
each_task = pytest.mark.parametrize("task", TASKS)


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    """The scenes of ``make_scenes``, not to be changed."""
    return make_scenes(tmp_path_factory.mktemp("data"))


@pytest.fixture
def console():
    return Console(quiet=True)


def outcome(output):
    """Weights, averages and moments, and metrics without times."""
    run = RunFolder(output)
    saved = run.find_checkpoint(warn=pytest.fail).state
    tensors = load_file(run.path / "model.safetensors") | {f"raw.{k}": v for k, v in saved["model"].items()}
    tensors |= {f"moment.{i}.{k}": v for i, values in saved["optimizer"].items() for k, v in values.items()}
    rows = [{k: v for k, v in row.items() if k not in TIMES} for row in run.read_metrics()]
    return tensors, rows


@pytest.fixture(scope="module")
def undisturbed(scenes, tmp_path_factory):
    """Runs with everything that is random, by task: their configuration and outcome."""
    runs = {}
    for task in TASKS:
        output = tmp_path_factory.mktemp(task) / "run"
        config = configure(task, scenes, output, "--accumulate=2", *RANDOM[task])
        train(config, Console(quiet=True))
        runs[task] = config, outcome(output)
    return runs


@contextmanager
def signalled(epoch, step, by):
    """Send this process a signal while this step is done."""
    original = Learner._backward

    def signal_then_step(self, parts, place):
        if (place.epoch, place.step + 1) == (epoch, step):
            signal.raise_signal(by)
        return original(self, parts, place)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Learner, "_backward", signal_then_step)
        yield


@each_task
@pytest.mark.parametrize("stop", ["after an epoch", "in an epoch", "by SIGTERM, with workers"])
def test_a_run_that_is_stopped_and_resumed_ends_as_if_it_had_not_been(
    undisturbed, task, stop, tmp_path, console
):
    whole, expected = undisturbed[task]
    config = dataclasses.replace(whole, output=str(tmp_path / "run"))
    if stop == "after an epoch":
        with pytest.raises(StopError):
            train(config, console, on_epoch=stop_after(1))
    else:
        place, workers = ((1, 2, signal.SIGTERM), 2) if "workers" in stop else ((2, 1, signal.SIGINT), 0)
        config = dataclasses.replace(config, workers=workers)
        with signalled(*place), pytest.raises(Interrupted, match="stopped and saved in epoch"):
            train(config, console)
    train(config, console, resume=True)
    assert_same(outcome(config.output), expected)


@each_task
def test_a_step_that_is_not_finite_is_skipped_and_counted(scenes, task, tmp_path, console):
    config = configure(task, scenes, tmp_path / "run")
    with poisoned({(1, 2), (2, 1), (2, 3)}):
        train(config, console)
    tensors, rows = outcome(config.output)
    assert [row["skipped"] for row in rows] == [1, 2]
    assert all(math.isfinite(value) for row in rows for value in row.values())
    assert all(value.isfinite().all() for value in tensors.values())  # those of batch norms too


@each_task
def test_losses_that_stay_infinite_stop_and_say_where_it_began(scenes, task, tmp_path, console):
    config = configure(task, scenes, tmp_path / "run", "--skip_limit=1")
    with pytest.raises(StopError):
        train(config, console, on_epoch=stop_after(1))
    weights = (RunFolder(config.output).path / "model.safetensors").read_bytes()
    wild = dataclasses.replace(config, optimizer=OptimizerConfig(lr=1e30, clip_grad=None), epochs=9)
    message = r"in 2 steps in a row, until epoch 2, .*where it began: the .* of .*; kept: .*run\. Try a lower"
    with pytest.raises(NonFiniteLossError, match=message):
        train(wild, console, resume=True)
    assert (RunFolder(config.output).path / "model.safetensors").read_bytes() == weights
    with (
        poisoned({(2, step) for step in (1, 2, 3)}),
        pytest.raises(NonFiniteLossError, match="where it began: the input images"),
    ):
        train(config, console, resume=True)


@each_task
def test_weights_without_finite_scores_are_not_saved(scenes, task, tmp_path, console):
    config = configure(task, scenes, tmp_path / "run", "--epochs=1")
    wild = dataclasses.replace(
        config,
        optimizer=OptimizerConfig(lr=1e30, clip_grad=None),
        schedule=ScheduleConfig(warmup=0.7),
        ema_decay=0,
    )
    with pytest.raises(NonFiniteLossError, match="on the validation images is nan after the last epoch"):
        train(wild, console)
    assert [path.name for path in RunFolder(config.output).path.iterdir()] == ["train.yaml"]


@each_task
def test_unreadable_images_are_named_and_do_not_count(task, tmp_path, console):
    data = make_scenes(tmp_path)
    broken = {("train", data / "images/train/000003.png"), ("val", data / "images/val/000002.png")}
    for _, path in broken:
        path.write_bytes(b"\x89PNG\r\n")
    if task == "segmentation":
        (data / "masks/train/000004.png").write_bytes(b"")
        broken.add(("train", data / "masks/train/000004.png"))
    config = configure(task, data, tmp_path / "run", "--workers=1")
    result = train(config, console)
    run = RunFolder(config.output)
    assert {(row["split"], Path(row["image"])) for row in run.read_unreadable()} == broken
    assert all(row["reason"] for row in run.read_unreadable())
    assert result.evaluation.scores.images == 4
    last = run.read_metrics()[-1]
    assert (last["val_images"], last["unreadable"]) == (4, len(broken))
    for path in data.glob("images/train/*"):
        path.write_bytes(b"")
    with pytest.raises(DataError, match="12 images in a row cannot be used"):
        train(dataclasses.replace(config, output=config.output + "-2"), console)


@pytest.fixture(scope="module")
def plain(scenes, tmp_path_factory):
    """A configuration of three smooth steps, and its outcome, by task."""
    runs = {}
    for task in TASKS:
        output = tmp_path_factory.mktemp(task) / "run"
        config = configure(task, scenes, output, *SMOOTH, *CERTAIN[task])
        train(config, Console(quiet=True))
        runs[task] = config, outcome(config.output)
    return runs


def distances(found, expected):
    """How far apart training losses are, and weights, as shares of the largest."""
    (loss,), (other,) = ([row["train_loss"] for row in rows] for _, rows in (found, expected))
    weights = max(
        ((found[0][name] - value).abs().max() / value.abs().max().clamp(min=1e-2)).item()
        for name, value in expected[0].items()
        if name.startswith("raw.") and value.is_floating_point() and "running_" not in name
    )
    return abs(loss / other - 1), weights


@each_task
@pytest.mark.parametrize("change", ["grad_checkpointing", "channels_last"])
def test_ways_to_save_time_or_memory_train_nearly_the_same(plain, task, change, tmp_path, console):
    config, expected = plain[task]
    config = dataclasses.replace(config, output=str(tmp_path / "run"), **{change: True})
    train(config, console)
    loss, weights = distances(outcome(config.output), expected)
    assert loss < 1e-5
    assert weights < 1e-4


@each_task
def test_lower_precision_loses_little(plain, task, tmp_path, console):
    """Of a detector the loss is compared alone: by what was rounded it learns from other regions."""
    config, expected = plain[task]
    config = dataclasses.replace(config, output=str(tmp_path / "run"), precision="bf16")
    train(config, console)
    loss, weights = distances(outcome(config.output), expected)
    assert 0 < loss < 1e-2
    assert weights < 0.1 or task == "detection"


@pytest.mark.parametrize(
    ("task", "backend"),
    [
        pytest.param(task, backend, marks=pytest.mark.slow)  # by default, test_train.py compiles a classifier
        for task in TASKS
        for backend in ("aot_eager", "inductor")
    ],
)
@pytest.mark.skipif(not has_compiler, reason="torch.compile needs a compiler")
@pytest.mark.filterwarnings("ignore")  # of torch.compile's own
def test_a_compiled_model_trains_nearly_the_same(plain, task, backend, tmp_path, console, monkeypatch):
    """To trace a model is where it can fail; to compile what was traced takes minutes.

    Of a detector the backbone alone is compiled.
    """
    monkeypatch.setattr(nn.Module, "compile", partialmethod(nn.Module.compile, backend=backend))
    config, expected = plain[task]
    config = dataclasses.replace(config, output=str(tmp_path / "run"), compile=True)
    train(config, console)
    loss, weights = distances(outcome(config.output), expected)
    assert loss < 1e-5
    assert weights < 1e-4


@each_task
def test_rates_fall_from_the_head_to_the_stem_with_layer_decay(scenes, task, tmp_path):
    model = opened_task(configure(task, scenes, tmp_path / "run")).build(None)
    optimizer = build_optimizer(model, OptimizerConfig(lr=1.0, layer_decay=0.5))
    name_of = {id(parameter): name for name, parameter in model.named_parameters()}
    seen = {}
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            name = name_of[id(parameter)]
            assert name not in seen
            seen[name] = group["lr_scale"], group["weight_decay"]
    assert seen.keys() == set(name_of.values())
    stem, last, heads = (
        {scale for name, (scale, _) in seen.items() if (part in name) == is_in}
        for part, is_in in ((".stem.", True), (".stages.3.1.", True), (".model.", False))
    )
    assert max(stem) < min(last) < 1.0
    assert heads == {1.0}
    free = {name for name, (_, decay) in seen.items() if decay == 0}
    assert free == {name for name in seen if name.endswith(("A_log", ".D", ".bias"))} | {
        name for name, parameter in model.named_parameters() if parameter.ndim == 1
    }


def test_rates_of_layers_follow_the_schedule_alike(scenes, tmp_path):
    model = opened_task(configure("segmentation", scenes, tmp_path / "run")).build(None)
    optimizer = build_optimizer(model, OptimizerConfig(lr=1.0, layer_decay=0.5))
    schedule = build_schedule(optimizer, ScheduleConfig("steps", warmup=0.0), 12)
    schedule.step_update(8)
    rates = sorted({group["lr"] for group in optimizer.param_groups})
    assert rates[-3:] == pytest.approx([0.025, 0.05, 0.1])


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        (ScheduleConfig(warmup=0.1), {0: 1e-6, 50: 0.5, 100: 0.976, 500: 0.5, 1000: 1e-5}),
        (ScheduleConfig("poly", warmup=0.1, min_lr=0.0), {0: 1e-6, 50: 0.5, 100: 0.9, 500: 0.5, 999: 1e-3}),
        (ScheduleConfig("poly", warmup=0.0, min_lr=0.0, power=2.0), {0: 1.0, 500: 0.25, 1000: 0.0}),
        (
            ScheduleConfig("steps", warmup=0.1),
            {0: 1e-6, 50: 0.5, 100: 1.0, 665: 1.0, 666: 0.1, 915: 0.1, 916: 0.01, 1000: 0.01},
        ),
        (ScheduleConfig("steps", warmup=0.0, milestones=(0.5,)), {0: 1.0, 499: 1.0, 500: 0.1, 1000: 0.1}),
    ],
    ids=["cosine", "poly", "poly of power 2", "steps", "one step"],
)
def test_rates_follow_the_schedule(schedule, expected):
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    made = build_schedule(optimizer, schedule, 1000)
    for step, rate in expected.items():
        made.step_update(step)
        assert optimizer.param_groups[0]["lr"] == pytest.approx(rate, rel=1e-3, abs=1e-6), step


@pytest.mark.parametrize("kind", ["cosine", "poly"])
def test_a_schedule_of_one_step_is_made_without_a_word(kind, caplog):
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    made = build_schedule(optimizer, ScheduleConfig(kind, warmup=0.0, min_lr=0.125), 1)
    assert optimizer.param_groups[0]["lr"] == 1.0
    made.step_update(1)
    assert optimizer.param_groups[0]["lr"] == 0.125
    assert not caplog.records
