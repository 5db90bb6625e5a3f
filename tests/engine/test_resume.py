"""A run that is stopped anywhere, and continued, ends as if it had not been."""

import json
import os
import random
import re
import signal
import subprocess
import sys
import time

import pytest
from safetensors.torch import load_file

from tests.conftest import make_image_folder
from v2m.engine.run_folder import RunFolder

EPOCHS, STEPS = 3, 6
ARGUMENTS = [
    f"--epochs={EPOCHS}",
    "--batch_size=4",
    "--accumulate=2",
    "--device=cpu",
    "--workers=2",
    "--ema_decay=0.9",
    "--model_args={embed_dim: 16, depth: 2, d_state: 2, patch_size: 4, drop_path_rate: 0.3, drop_rate: 0.2}",
    "--input.img_size=[8, 12]",
    "--augment.scale=[0.3, 1.0]",
    "--augment.color_jitter=0.4",
    "--augment.auto_augment=rand-m9-mstd0.5-inc1",
    "--augment.random_erasing=0.5",
    "--augment.mixup=0.8",
    "--augment.cutmix=1.0",
    "--checkpoint.minutes=1e-9",  # one after every step
]
PLACE = r"(in epoch [23], step \d of 6|after epoch [12])"
"""Where a run stops that is asked to as soon as its first epoch is written."""
SAME = (
    "epoch",
    "lr",
    "train_loss",
    "train_top1",
    "val_loss",
    "val_top1",
    "val_top5",
    "val_images",
    "skipped",
)


def start(folder, output, *more):
    command = [sys.executable, "-m", "v2m", "train", "--data", str(folder), "--output", str(output)]
    return subprocess.Popen(
        [*command, "--resume", "auto", *ARGUMENTS, *more],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )


def outcome(output):
    """Everything that must be the same: weights, averages, moments' effect on them, and metrics."""
    run = RunFolder(output)
    saved = run.find_checkpoint(warn=pytest.fail).state
    tensors = load_file(run.path / "model.safetensors") | {f"raw.{k}": v for k, v in saved["model"].items()}
    tensors |= {f"moment.{i}.{k}": v for i, values in saved["optimizer"].items() for k, v in values.items()}
    rows = [{key: row[key] for key in SAME} for row in run.read_metrics()]
    return tensors, rows


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return make_image_folder(tmp_path_factory.mktemp("data with spaces, é"))


@pytest.fixture(scope="module")
def uninterrupted(folder, tmp_path_factory):
    output = tmp_path_factory.mktemp("runs") / "whole"
    process = start(folder, output)
    text, _ = process.communicate(timeout=120)
    assert process.returncode == 0, text
    return outcome(output)


def assert_same(one, other):
    assert one[1] == other[1]
    assert one[0].keys() == other[0].keys()
    for name, value in one[0].items():
        assert value.equal(other[0][name]), name


def wait_for(condition, process, seconds=120.0):
    """Wait until it is so; whether it came to be before the process ended."""
    end = time.monotonic() + seconds
    while process.poll() is None:
        if condition():
            return True
        assert time.monotonic() < end, "nothing happened"
        time.sleep(0.002)  # leaves the processor to those that are waited for
    return False


def test_killed_at_random_points_it_ends_as_if_it_had_not_been(folder, uninterrupted, tmp_path):
    generator, output = random.Random(0), tmp_path / "run"
    checkpoints, seen, kills = output / "checkpoints", set(), 0
    while True:
        process, count = start(folder, output), generator.randint(2, 6)
        known = len(seen)

        def has_got_on(known=known, count=count):
            seen.update(path.name for path in checkpoints.glob("*.pt"))
            return len(seen) - known >= count

        wait_for(has_got_on, process)
        if kills == 1:  # in the middle of a checkpoint
            wait_for(lambda: any(checkpoints.glob(".checkpoint-*.partial")), process)
        else:
            time.sleep(generator.uniform(0.0, 0.1))
        process.kill()
        text, _ = process.communicate()
        if process.returncode == 0:
            break
        assert process.returncode == -signal.SIGKILL, text
        kills += 1
        assert kills < 15
    assert kills >= 3
    assert_same(outcome(output), uninterrupted)


def test_asked_to_stop_it_saves_and_goes_on(folder, uninterrupted, tmp_path):
    output = tmp_path / "run"
    process = start(folder, output, "--checkpoint.minutes=1000")
    assert wait_for(output.joinpath("metrics.jsonl").exists, process)
    process.send_signal(signal.SIGTERM)
    text, _ = process.communicate(timeout=120)
    assert process.returncode == 130, text
    assert re.search(rf"stopped and saved {PLACE}; continue with: v2m train --resume", text)
    command = [sys.executable, "-m", "v2m", "train", "--resume", str(output)]
    again = subprocess.run(
        command, capture_output=True, text=True, timeout=120, env=os.environ | {"OMP_NUM_THREADS": "1"}
    )
    assert again.returncode == 0, again.stderr
    assert again.stdout.startswith(f"resuming {output}: v2m_nano on ")
    assert re.search(r"^going on in epoch [23], after step \d of 6$", again.stdout, re.M)
    assert_same(outcome(output), uninterrupted)


def test_metrics_are_plain_json_lines(uninterrupted):
    assert [row["epoch"] for row in uninterrupted[1]] == list(range(1, EPOCHS + 1))
    json.dumps(uninterrupted[1], allow_nan=False)
