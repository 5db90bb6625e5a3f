import os
import signal
import sys

import pytest
import torch

from v2m.benchmark.memory import peak_memory

CPU = torch.device("cpu")
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells the peak memory")


def build(held, taken):
    """A call that takes some megabytes for a moment, beside some that are held all the time."""
    inputs = torch.ones(held, 2**18)

    def call():
        torch.ones(taken, 2**18).sum() + inputs.sum()

    return call


def build_a_victim():
    return lambda: os.kill(os.getpid(), signal.SIGKILL)


def test_the_peak_of_a_call_is_counted_beyond_what_was_there():
    assert peak_memory(build, 200, 100, device=CPU) == pytest.approx(100, abs=5)


def build_something_wrong():
    raise ValueError("no such size")


def test_an_error_comes_back():
    with pytest.raises(ValueError, match="no such size"):
        peak_memory(build_something_wrong, device=CPU)


def test_a_killed_process_is_reported():
    with pytest.raises(OSError, match="was killed, probably for want of memory"):
        peak_memory(build_a_victim, device=CPU)


def test_the_process_takes_no_modules_of_the_current_folder(tmp_path, monkeypatch):
    monkeypatch.delenv("PYTHONSAFEPATH", raising=False)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "multiprocessing.py").write_text("open('imported', 'w')")
    peak_memory(build, 1, 1, device=CPU)
    assert os.getcwd() == str(tmp_path)
    assert not (tmp_path / "imported").exists()
