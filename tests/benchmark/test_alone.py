import os
import signal
import time

import pytest
import torch

from v2m.benchmark.alone import run_alone


def what_it_is_like():
    return os.getpid(), os.getcwd(), torch.get_num_threads()


def sleep_for_minutes():
    time.sleep(300)


def be_killed():
    os.kill(os.getpid(), signal.SIGKILL)


def be_wrong():
    raise ValueError("no such size")


def test_a_process_is_like_the_one_that_starts_it():
    process, folder, threads = run_alone(what_it_is_like, limit=60)
    assert process != os.getpid()
    assert (folder, threads) == (os.getcwd(), torch.get_num_threads())


def test_what_takes_too_long_is_ended():
    started = time.monotonic()
    with pytest.raises(TimeoutError, match=r"over 0.5 s"):
        run_alone(sleep_for_minutes, limit=0.5)
    assert time.monotonic() - started < 100


@pytest.mark.parametrize(
    ("function", "error", "message"),
    [(be_wrong, ValueError, "no such size"), (be_killed, OSError, "was killed, probably for want of memory")],
)
def test_what_goes_wrong_comes_back(function, error, message):
    with pytest.raises(error, match=message):
        run_alone(function)
