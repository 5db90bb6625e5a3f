"""Several processes with gloo, by torchrun or forked: they train, score and go on as one process does."""

import json
import multiprocessing
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from types import SimpleNamespace

import pytest
import torch

from tests.conftest import make_image_folder
from tests.engine.test_resume import PLACE, SAME, assert_same, outcome, wait_for
from v2m.cli import main
from v2m.data import open_dataset
from v2m.data.loading import EvalLoader
from v2m.engine import parallel, processes
from v2m.engine.run_folder import RunFolder

ARGUMENTS = [
    "--epochs=3",
    "--batch_size=4",
    "--device=cpu",
    "--workers=1",
    "--ema_decay=0.9",
    "--model_args={embed_dim: 16, depth: 2, d_state: 2, patch_size: 4}",
    "--input.img_size=[8, 12]",
    "--augment.scale=[0.3, 1.0]",
    "--augment.color_jitter=0.4",
]
ROUNDING = 1e-4
TORCHRUN = ["torch.distributed.run", "--nproc_per_node=2"]
CALLS = """
import json
import sys

from accelerate import Accelerator

from v2m.cli import main

Accelerator.end_training = lambda self: None  # the processes stay joined for the next call
for arguments, codes in json.loads(sys.argv[1]):
    assert main(arguments) in codes, arguments
"""


def launch(*command):
    """Start processes that find each other; what they print is one text."""
    return subprocess.Popen(
        [sys.executable, *command],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        start_new_session=True,
    )


def fork(count, script, *arguments):
    """Processes that run a script."""
    return launch("-m", "tests.engine.launcher", str(count), str(script), *arguments)


def text_of(process, code=0):
    text, _ = process.communicate(timeout=180)
    assert process.returncode == code, text
    return text


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Images of which 11 are to validate, and one of those cannot be read."""
    images = make_image_folder(tmp_path_factory.mktemp("data"))
    (images / "val" / "red" / "0.png").unlink()
    (images / "val" / "blue" / "3.png").write_bytes(b"no image")
    return images


@pytest.fixture(scope="module")
def alone(folder, tmp_path_factory):
    """What one process makes of it."""
    output = tmp_path_factory.mktemp("runs") / "alone"
    arguments = ["train", "--data", str(folder), "--output", str(output), *ARGUMENTS, "--accumulate=2"]
    assert main(arguments) == 0
    return outcome(output)


@pytest.fixture(scope="module")
def pair(folder, tmp_path_factory):
    """The folder of what two processes make of it, with whole weights and with divided ones."""
    parent = tmp_path_factory.mktemp("runs")
    (parent / "calls.py").write_text(CALLS)
    calls = []
    for name, more in (("whole", []), ("divided", ["--fsdp=true"])):
        arguments = ["train", "--data", str(folder), "--output", str(parent / name), *ARGUMENTS, *more]
        calls.append((arguments, [0]))
    text_of(fork(2, parent / "calls.py", json.dumps(calls)))
    return parent


@pytest.fixture(scope="module")
def together(pair):
    """What two processes make of it."""
    return outcome(pair / "whole")


def assert_close(one, other):
    """Loss curves and weights are the same up to rounding."""
    for row, expected in zip(one[1], other[1], strict=True):
        assert row == pytest.approx(expected, abs=ROUNDING)
    for name in (name for name in other[0] if "moment" not in name):
        torch.testing.assert_close(one[0][name], other[0][name], rtol=ROUNDING, atol=ROUNDING)


def test_two_processes_train_as_one_does(alone, together):
    assert together[1][0].keys() == set(SAME)
    assert [row["val_images"] for row in together[1]] == [10, 10, 10]
    assert_close(together, alone)


def test_weights_that_are_divided_train_as_whole_ones(pair, alone):
    assert_close(outcome(pair / "divided"), alone)


def test_torchrun_asked_to_stop_saves_and_one_or_two_processes_go_on(folder, alone, together, tmp_path):
    output, copy = tmp_path / "run", tmp_path / "copy"
    arguments = ["--data", str(folder), *ARGUMENTS, "--resume=auto"]
    process = launch("-m", *TORCHRUN, "-m", "v2m", "train", *arguments, "--output", str(output))
    assert wait_for((output / "metrics.jsonl").exists, process)
    process.send_signal(signal.SIGTERM)
    asked = time.monotonic()
    text = text_of(process, code=1)
    assert time.monotonic() - asked < 25.0  # torchrun kills after 30
    assert len(re.findall(rf"v2m: stopped and saved {PLACE}", text)) == 1, text
    shutil.copytree(output, copy)

    (tmp_path / "calls.py").write_text(CALLS)
    calls = [(["train", *arguments, "--output", str(output)], [0])]
    text = text_of(fork(2, tmp_path / "calls.py", json.dumps(calls)))
    assert text.count("going on in epoch") == 1
    assert_same(outcome(output), together)

    assert main(["train", "--resume", str(copy)]) == 0
    assert_close(outcome(copy), alone)


FOUR = """
import sys
from pathlib import Path

import torch

from v2m.data.loading import EvalLoader
from v2m.engine import parallel, processes
from v2m.engine.evaluate import evaluate
from v2m.tasks import load_model
from v2m.tasks.classification.metrics import ClassificationResults

accelerator = parallel.start("cpu")
rank = accelerator.process_index
assert parallel.gather_items(accelerator, ["x"] * (rank % 2)) == ["x", "x"]
assert parallel.from_main(accelerator, lambda: rank) == 0

run, folder, out = map(Path, sys.argv[1:])
saved = load_model(run)
data = saved.evaluator.open_data(str(folder), folder)
results = ClassificationResults(saved.evaluator.classes)
found = evaluate(saved.model, EvalLoader(data, 2, rank=rank, processes=4), results, accelerator)
assert len(found.unreadable) == 1
assert results.indices.tolist() == sorted(results.indices.tolist())
if accelerator.is_main_process:
    torch.save(dict(logits=results.logits, top1=found.scores.top1, images=found.scores.images), out)
accelerator.end_training()
"""


def test_four_processes_score_an_odd_number_of_images(folder, alone, tmp_path, monkeypatch):
    run = tmp_path / "run"
    assert main(["train", "--data", str(folder), "--output", str(run), *ARGUMENTS, "--epochs=1"]) == 0
    script = tmp_path / "four.py"
    script.write_text(FOUR)
    text_of(fork(4, script, str(run), str(folder), str(tmp_path / "found.pt")))
    found = torch.load(tmp_path / "found.pt")
    row = RunFolder(run).read_metrics()[-1]
    assert found["images"] == row["val_images"] == len(found["logits"]) == 10
    assert found["top1"] == pytest.approx(row["val_top1"])


def test_what_is_wrong_for_all_is_told_by_the_first(monkeypatch, capsys):
    waits = []
    monkeypatch.setattr("v2m.engine.processes.time.sleep", waits.append)
    for local in ("0", "1"):
        monkeypatch.setenv("LOCAL_RANK", local)
        assert main(["train", "--data", "digits", "--batch_size=0"]) == 1
    assert waits == [processes.SECONDS_TO_GIVE_WAY]
    assert capsys.readouterr().err.count("v2m: error:") == 2


def test_a_lost_process_is_told_of_in_a_line(monkeypatch):
    gloo = "[/gloo/pair.cc:545] Read error [::1]:9: Connection reset by peer. This is typically caused by"
    others = SimpleNamespace(num_processes=2, process_index=1)
    with (
        pytest.raises(
            processes.ProcessLostError, match=r"^process 1 lost the others \(Read error [^.]* peer\);"
        ),
        parallel.lost_processes(others),
    ):
        raise RuntimeError(gloo)


def test_a_signal_to_all_processes_leaves_those_that_read_images(folder):
    data = open_dataset(str(folder), "val", folder)
    data.transform = lambda image: torch.zeros(1)
    loader = EvalLoader(data, 1, workers=2)
    batches = iter(loader)
    next(batches), next(batches)  # one of each process, so both have begun
    for worker in multiprocessing.active_children():
        subprocess.run(["kill", "-TERM", str(worker.pid)], check=True)  # not from the process that started it
        subprocess.run(["kill", "-INT", str(worker.pid)], check=True)
    assert sum(len(batch.targets) for batch in batches) == 8
