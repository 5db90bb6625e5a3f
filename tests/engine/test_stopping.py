"""Ctrl-C, in processes of their own: it is answered within two seconds, wherever they are."""

import os
import random
import signal
import subprocess
import sys
import time

import pytest

from tests.conftest import make_image_folder
from v2m.cli import main
from v2m.engine.stopping import Interrupted, stop_requests, when_stopped

TWO_SECONDS = 4.0
"""What a busy machine makes of two seconds."""
ANSWER = "v2m: stopping after this step, then saving; Ctrl-C again stops at once"
BUSY = """
import hashlib, sys
from v2m.engine.stopping import answer_interrupts, stop_requests, when_stopped

def compute():
    while True:  # Ctrl-C may come before the long call, which Python would stop by itself
        try:
            print("busy", flush=True)
            hashlib.pbkdf2_hmac("sha256", b"", b"", 2**31 - 1)  # Python hears of nothing meanwhile
        except KeyboardInterrupt:
            pass

answer_interrupts()
if sys.argv[1] == "asked":
    with when_stopped("kept; go on".title), stop_requests("stopping soon"):
        compute()
compute()
"""


def start(*command, merged=False):
    """A process, and the first line that it prints."""
    process = subprocess.Popen(
        [sys.executable, *command],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT if merged else subprocess.PIPE,
        text=True,
        start_new_session=True,
        # A shell that runs the tests in the background has its commands ignore Ctrl-C.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    assert process.stdout is not None
    first = process.stdout.readline()
    return process, first


def press(process):
    """Ctrl-C in a terminal: all processes of the command get it."""
    os.killpg(process.pid, signal.SIGINT)


def end_of(process):
    """Exit code, what was said, and the seconds until the end."""
    pressed = time.monotonic()
    press(process)
    error = process.communicate(timeout=60)[1]
    return process.returncode, error.splitlines(), time.monotonic() - pressed


def test_an_operator_that_takes_long_is_ended():
    process, _ = start("-c", BUSY, "unasked")
    code, lines, seconds = end_of(process)
    assert (code, lines) == (130, ["v2m: stopped"])
    assert seconds < TWO_SECONDS


def test_a_request_is_answered_at_once_and_a_second_one_ends():
    process, _ = start("-c", BUSY, "asked")
    press(process)
    pressed = time.monotonic()
    assert process.stderr.readline() == "v2m: stopping soon\n"
    assert time.monotonic() - pressed < TWO_SECONDS / 2
    time.sleep(0.5)
    assert process.poll() is None
    code, lines, seconds = end_of(process)
    assert (code, lines) == (130, ["v2m: Kept; Go On"])
    assert seconds < TWO_SECONDS


def test_what_is_said_where_there_is_no_thread(capsys):
    before = signal.getsignal(signal.SIGINT)
    with stop_requests("stopping soon") as is_asked:
        assert not is_asked()
        signal.raise_signal(signal.SIGINT)
        assert is_asked()
        signal.raise_signal(signal.SIGINT)  # an echo of the first
    assert signal.getsignal(signal.SIGINT) is before
    assert capsys.readouterr().err == "v2m: stopping soon\n"
    with pytest.raises(Interrupted, match="all is kept"), when_stopped("all is kept".lower):
        raise KeyboardInterrupt


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    return make_image_folder(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run on digits."""
    run = tmp_path_factory.mktemp("runs") / "run"
    assert main(["train", "--data=digits", f"--output={run}", "--epochs=1", "--device=cpu", DEPTH]) == 0
    return run


DEPTH = "--model_args.depth=1"
SMALL = ["--batch_size=8", "--device=cpu", "--input.img_size=[64, 64]", DEPTH]


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 2])
def test_training_stops_wherever_it_is_and_goes_on(images, tmp_path, workers):
    generator, run = random.Random(workers), tmp_path / "run"
    command = ["-m", "v2m", "train", "--data", str(images), "--output", str(run), *SMALL, "--resume=auto"]
    for _ in range(10):
        process, first = start(*command, f"--workers={workers}", "--epochs=10000")
        assert first.startswith(("training v2m_nano on", "resuming"))
        time.sleep(generator.uniform(0, 8))
        pressed = time.monotonic()
        press(process)
        answer = process.stderr.readline()
        seconds = time.monotonic() - pressed
        rest = process.communicate(timeout=60)[1]
        assert process.returncode == 130, answer + rest
        assert seconds < TWO_SECONDS, answer
        if answer.startswith(ANSWER):
            assert rest.startswith("v2m: stopped and saved "), rest
            assert rest.endswith(f"; continue with: v2m train --resume {run}\n")
        else:
            assert answer.startswith("v2m: stopped"), answer + rest
            assert not rest


@pytest.mark.slow
@pytest.mark.parametrize(
    "command",
    [
        "eval {run} --workers=2",
        "eval {run}",
        "predict {run} {images} --json",
        "embed {run} digits --split=train --out={output}.npz --workers=2",
        "probe {run} --data=digits --output={output}",
        "data check {images} --workers=2 --output={output}",
    ],
)
def test_other_commands_stop_wherever_they_are(images, trained, tmp_path, command):
    generator = random.Random(command)
    for attempt in range(4):
        words = command.format(run=trained, images=images, output=tmp_path / f"out{attempt}").split()
        process, first = start("-m", "v2m", *words, merged=True)
        assert not first.startswith("Traceback")
        time.sleep(generator.uniform(0, 2))
        pressed = time.monotonic()
        press(process)
        said = process.communicate(timeout=60)[0]
        assert time.monotonic() - pressed < TWO_SECONDS, said
        assert "Traceback" not in said
        # Or it was done; at its very end, Python has given the signal back to the system.
        assert process.returncode in (0, 130, -signal.SIGINT), said
        assert process.returncode != 130 or "v2m: stopped" in said
