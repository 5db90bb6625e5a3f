import platform

import torch

import v2m
from v2m.benchmark.hardware import Hardware


def test_the_record_names_what_a_time_depends_on(monkeypatch):
    monkeypatch.setenv("MALLOC_ARENA_MAX", "3")
    monkeypatch.setenv("SECRET", "4")
    hardware = Hardware.of(torch.device("cpu"))
    assert hardware.cpu
    assert hardware.threads == torch.get_num_threads()
    assert hardware.gpu is None
    assert hardware.kernels in ("cpu", "pytorch")
    assert hardware.versions["v2m"] == v2m.__version__
    assert hardware.versions["python"] == platform.python_version()
    assert hardware.environment["MALLOC_ARENA_MAX"] == "3"
    assert "SECRET" not in hardware.environment
    assert hardware.name.startswith(hardware.cpu)
    assert hardware.name.endswith(("thread", "threads"))
