import json
import platform
from dataclasses import asdict

import torch

import v2m
from tests.documents.results import CURRENT
from tests.helpers import REPOSITORY
from v2m.benchmark.hardware import Hardware, hardware_name
from v2m.ops.kernels.build import VECTORS, KernelError


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
    assert hardware_name(asdict(hardware)) == hardware.name
    assert (hardware.kernel_instructions in VECTORS.values()) == (hardware.kernels == "cpu")
    assert f"{hardware.kernels} kernels" in hardware.lines()[0]
    assert f"{hardware.cores} processors" in hardware.lines()[1]


def test_files_of_before_have_a_name_too():
    content = json.loads((REPOSITORY / "benchmarks/results" / f"{CURRENT['readme']}.json").read_text())
    assert hardware_name(content["hardware"]) == f"{content['hardware']['cpu']}, 1 thread"


def test_a_compiler_that_does_not_tell_is_no_failure(monkeypatch):
    def fail():
        raise KernelError("no")

    monkeypatch.setattr("v2m.benchmark.hardware.vector_instructions", fail)
    assert Hardware.of(torch.device("cpu")).kernel_instructions is None
