"""What the engine promises for classification, for detection and segmentation: one engine trains them all."""

import dataclasses
import math
import re
import shutil
import signal
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from accelerate.utils import recursively_apply
from rich.console import Console
from safetensors.torch import load_file

from tests.engine.test_parallel import text_of, torchrun
from tests.engine.test_resume import assert_same
from tests.engine.test_train import StopError, stop_after
from tests.scenes import MODEL_ARGS, PICTURES, TASKS, make_scenes, train_arguments
from v2m.cli import main
from v2m.cli.parser import build_parser
from v2m.cli.settings import train_config
from v2m.data import DataError, ImageSpec
from v2m.data.loading import EvalLoader
from v2m.engine import parallel
from v2m.engine.checkpoint import read_checkpoint
from v2m.engine.evaluate import evaluate
from v2m.engine.learner import Learner
from v2m.engine.resolve import build_optimizer, build_schedule
from v2m.engine.run import RunFolder
from v2m.engine.stopping import Interrupted
from v2m.engine.train import NonFiniteLossError, train
from v2m.tasks import find_task
from v2m.tasks.classification.head import build_model as build_classifier
from v2m.tasks.classification.head import save_model as save_classifier
from v2m.tasks.config import OptimizerConfig, ScheduleConfig
from v2m.tasks.hub import read_folder

RANDOM = dict(
    detection=["--augment.jitter=[0.5, 1.5]", "--augment.crop_size=64"],
    segmentation=["--augment.photometric=1", "--head.dropout=0.3"],
)
"""Everything that is random, on."""
each_task = pytest.mark.parametrize("task", TASKS)


def configure(task, data, output, *more):
    """The configuration of a tiny run, as the command line makes it."""
    arguments = train_arguments(task, data, output, *more)
    parser = build_parser(arguments)
    return train_config(parser.instantiate(parser.parse_args(arguments))["train"])


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
    saved = read_checkpoint(run.find_checkpoint(warn=pytest.fail))
    tensors = load_file(run.path / "model.safetensors") | {f"raw.{k}": v for k, v in saved["model"].items()}
    tensors |= {f"moment.{i}.{k}": v for i, values in saved["optimizer"].items() for k, v in values.items()}
    times = ("images_per_s", "seconds", "data_wait")
    rows = [{k: v for k, v in row.items() if k not in times} for row in run.read_metrics()]
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


@contextmanager
def poisoned(steps):
    """Make the images of these steps (epoch, step) infinite."""
    original = Learner._seed, Learner._inputs
    places = []

    def seed(self, place):
        places.append((place.epoch, place.step + 1))
        original[0](self, place)

    def inputs(self, batch):
        targets, images, mixed = original[1](self, batch)
        if places[-1] in steps:
            images = recursively_apply(lambda image: image * math.inf, images)
        return targets, images, mixed

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Learner, "_seed", seed)
        patch.setattr(Learner, "_inputs", inputs)
        yield


@each_task
def test_a_step_that_is_not_finite_is_skipped_and_counted(scenes, task, tmp_path, console):
    config = configure(task, scenes, tmp_path / "run")
    with poisoned({(1, 2), (2, 1), (2, 3)}):
        train(config, console)
    rows = RunFolder(config.output).read_metrics()
    assert [row["skipped"] for row in rows] == [1, 2]
    assert all(math.isfinite(value) for row in rows for value in row.values())


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
    with pytest.raises(DataError, match="12 images in a row cannot be read"):
        train(dataclasses.replace(config, output=config.output + "-2"), console)


@pytest.fixture(scope="module")
def plain_loss(scenes, tmp_path_factory):
    """Training loss of the first epoch, by task."""
    losses = {}
    for task in TASKS:
        output = tmp_path_factory.mktemp(task) / "run"
        train(configure(task, scenes, output, "--epochs=1"), Console(quiet=True))
        losses[task] = RunFolder(output).read_metrics()[0]["train_loss"]
    return losses


@each_task
@pytest.mark.parametrize(
    "change",
    [dict(precision="bf16"), dict(grad_checkpointing=True), dict(channels_last=True)],
    ids=str,
)
def test_ways_to_save_time_or_memory_train_nearly_the_same(
    scenes, plain_loss, task, change, tmp_path, console
):
    config = configure(task, scenes, tmp_path / "run", "--epochs=1")
    train(dataclasses.replace(config, **change), console)
    (row,) = RunFolder(config.output).read_metrics()
    tolerance = 0.1 if "precision" in change else 0.02  # detectors draw regions by scores, which round
    assert row["train_loss"] == pytest.approx(plain_loss[task], rel=tolerance)


@each_task
def test_two_processes_train_and_score_together(scenes, plain_loss, task, tmp_path):
    """The same batches; batch norm and the choice of regions are each process's own: losses differ a bit."""
    output = tmp_path / "run"
    arguments = train_arguments(task, scenes, output, "--epochs=1")
    text_of(torchrun(2, "-m", "v2m", *arguments))
    (row,) = RunFolder(output).read_metrics()
    assert row["train_loss"] == pytest.approx(plain_loss[task], rel=0.1)
    assert row["val_images"] == 5
    assert main(["eval", str(output), "--output", str(tmp_path / "alone")]) == 0
    folder = find_task(task).load_model(output)
    data = folder.evaluator.open_data(str(scenes), tmp_path)
    batches = EvalLoader(data, 2, collate=folder.evaluator.collate)
    found = evaluate(folder.model, batches, folder.evaluator.results(data), parallel.start("cpu"))
    for name, value in found.scores.metrics.items():
        assert row[f"val_{name}"] == pytest.approx(value, rel=1e-5, abs=1e-6), name


@each_task
def test_rates_fall_from_the_head_to_the_stem_with_layer_decay(scenes, task, tmp_path):
    config = configure(task, scenes, tmp_path / "run")
    made = find_task(task)(find_task(task).resolve(config))
    made.open_data(pytest.fail)
    model = made.build_model(None)
    optimizer = build_optimizer(model, OptimizerConfig(lr=1.0, layer_decay=0.5))
    name_of = {id(parameter): name for name, parameter in model.named_parameters()}
    seen = {}
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            name = name_of[id(parameter)]
            assert name not in seen
            seen[name] = group.get("lr_scale", 1.0), group["weight_decay"]
    assert seen.keys() == set(name_of.values())
    stem = {scale for name, (scale, _) in seen.items() if ".stem." in name}
    last = {scale for name, (scale, _) in seen.items() if ".stages.3.1" in name}
    heads = {scale for name, (scale, _) in seen.items() if ".model." not in name}
    assert max(stem) < min(last) < 1.0
    assert heads == {1.0}
    assert all(decay == 0 for name, (_, decay) in seen.items() if name.endswith(("A_log", "A_b_log", ".D")))


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        (ScheduleConfig("poly", warmup=0.1, min_lr=0.0), {50: 0.5, 100: 0.9, 500: 0.5, 999: 0.001}),
        (ScheduleConfig("steps", warmup=0.1), {50: 0.5, 100: 1.0, 600: 1.0, 700: 0.1, 950: 0.01}),
    ],
    ids=["poly", "steps"],
)
def test_rates_follow_the_schedule(schedule, expected):
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    schedule = build_schedule(optimizer, schedule, 1000)
    for step, rate in expected.items():
        schedule.step_update(step)
        assert optimizer.param_groups[0]["lr"] == pytest.approx(rate, abs=2e-3), step


def backbone_of(folder):
    """The backbone's weights in a run folder, under the names of timm's whole model."""
    state = load_file(folder / "model.safetensors")
    prefix = read_folder(folder).config.get("backbone", "")
    return {
        name.removeprefix(prefix).removeprefix("model.").removeprefix("model."): value
        for name, value in state.items()
        if name.startswith(prefix)
    }


@pytest.fixture(scope="module")
def classifier(tmp_path_factory):
    """A classifier of gray images with the backbone of the tiny models."""
    folder = tmp_path_factory.mktemp("classifier")
    spec = ImageSpec((32, 32), 1, (0.3,), (0.4,), crop_pct=1.0, interpolation="bicubic")
    save_classifier(build_classifier("v2m_lite_nano", MODEL_ARGS, 3, spec), folder, ["a", "b", "c"], spec)
    return folder


@each_task
def test_weights_start_from_runs_of_any_task(scenes, classifier, undisturbed, task, tmp_path):
    other = Path(undisturbed[next(name for name in TASKS if name != task)][0].output)
    own = Path(undisturbed[task][0].output)
    for source in (classifier, classifier / "model.safetensors", other, other / "best", own):
        config = configure(task, scenes, tmp_path / "run", f"--pretrained={source}")
        made = find_task(task)(find_task(task).resolve(config))
        made.open_data(pytest.fail)
        model = made.build_model(config.pretrained)
        (tmp_path / "built").mkdir(exist_ok=True)
        made.save_model(model, tmp_path / "built")
        before = backbone_of(source if source.is_dir() else source.parent)
        for name, value in backbone_of(tmp_path / "built").items():
            if value.shape == before[name].shape:  # all but the first convolution, gray before
                assert value.equal(before[name]), name
            else:
                assert "stem.0.conv" in name
        if source == own:
            weights = load_file(own / "model.safetensors")
            assert all(value.equal(weights[name]) for name, value in model.state_dict().items())


@each_task
def test_weights_that_cannot_be_started_from_are_named(scenes, classifier, task, tmp_path, capsys):
    damaged = shutil.copytree(classifier, tmp_path / "damaged")
    (damaged / "model.safetensors").write_bytes(b"no weights")
    for source, more, words in (
        (tmp_path / "nowhere", (), "pretrained: .*nowhere: no model there"),
        (damaged, (), "pretrained: .*damaged: the model cannot be loaded"),
        (
            classifier,
            ("--model=resnet18", "--model_args={}"),
            "holds a v2m_lite_nano, but the model is resnet18",
        ),
        ("timm", (), "pretrained: timm has no weights of v2m_lite_nano"),
    ):
        arguments = train_arguments(task, scenes, tmp_path / "run", f"--pretrained={source}", *more)
        assert main(arguments) == 1
        line = capsys.readouterr().err
        assert line.count("\n") == 1
        assert re.search(words, line)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (
            ["--task=detetcion", "--data={scenes}"],
            "task: 'detetcion' is no task, expected one of classification",
        ),
        (["--task=detection", "--data=digits"], "data: digits is not a folder"),
        (["--task=segmentation", "--data=digits"], "data: 'digits' is no folder"),
        (
            ["--task=detection", "--recipe=scenes-segmentation", "--data={scenes}"],
            "which is for segmentation",
        ),
        (["--task=segmentation", "--data={scenes}", "--batch_size=1"], "batch_size is 1 in 1 parts"),
        (["--task=segmentation", "--data={scenes}/images"], "has no images to train on, expected"),
    ],
    ids=str,
)
def test_mistakes_are_one_line(scenes, arguments, words, capsys):
    try:
        code = main(["train", *(argument.format(scenes=scenes) for argument in arguments)])
    except SystemExit as end:  # the parser's
        code = end.code
    error = capsys.readouterr().err
    assert code in (1, 2)
    assert error.count("\n") == 1
    assert words in error


@each_task
def test_the_commands_say_and_write_what_they_promise(scenes, undisturbed, task, tmp_path, capsys):
    run = Path(undisturbed[task][0].output)
    last = RunFolder(run).read_metrics()[-1]
    assert (run / "train.yaml").read_text().count(f"task: {task}\n") == 1
    assert main(["eval", str(run), "--output", str(tmp_path / "eval")]) == 0
    printed = capsys.readouterr().out
    share = {"detection": "mask_ap", "segmentation": "miou"}[task]
    shown = f"{last[f'val_{share}']:.{1 if task == 'detection' else 2}%}"
    assert shown in printed
    assert {path.name for path in (tmp_path / "eval").iterdir()} == PICTURES[task]
    images = sorted(map(str, (scenes / "images/val").glob("*.png")))
    bad = tmp_path / "bad.png"
    bad.write_bytes(b"no image")
    assert main(["predict", str(run), *images, str(bad), "--output", str(tmp_path / "found")]) == 1
    out, err = capsys.readouterr()
    assert len([line for line in out.splitlines() if ".png" in line]) == len(images)
    assert "bad.png: not a readable image" in err
    assert all((tmp_path / "found" / Path(image).name).is_file() for image in images)


def test_windows_and_scales_are_options_of_segmentation_alone(undisturbed, tmp_path, capsys):
    run = undisturbed["segmentation"][0].output
    for options in (["--window=32", "--stride=16"], ["--scales", "0.5", "1", "--flip=true"], ["--window=0"]):
        assert main(["eval", run, "--output", str(tmp_path), *options]) == 0
    capsys.readouterr()
    assert main(["eval", undisturbed["detection"][0].output, "--window=32"]) == 1
    assert "window: models for segmentation alone have this option" in capsys.readouterr().err
    assert main(["eval", run, "--stride=16"]) == 1
    assert "inference.stride is 16, expected none without a window" in capsys.readouterr().err
