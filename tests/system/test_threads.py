"""Each test of what a process does has one of its own: libgomp reads its variables as it is loaded."""

import os
import subprocess
import sys
import time

import pytest

from v2m.system import machine
from v2m.system.threads import COUNT_VARIABLES, SPIN_VARIABLES, CpuTime, threads_beside

PREPARED = """
import sys
from v2m.system.threads import share_cores
share_cores()
assert "torch" not in sys.modules
import torch
"""
is_linux = pytest.mark.skipif(sys.platform != "linux", reason="libgomp is PyTorch's runtime on Linux")


def run(program, **variables):
    """What a program prints, and what libgomp tells of itself when it is loaded."""
    clean = {n: v for n, v in os.environ.items() if n not in (*SPIN_VARIABLES, *COUNT_VARIABLES)}
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=clean | dict(OMP_DISPLAY_ENV="VERBOSE") | variables,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout, done.stderr


@is_linux
@pytest.mark.parametrize(
    ("variables", "spins"),
    [({}, "10000"), ({"GOMP_SPINCOUNT": "77"}, "77"), ({"OMP_WAIT_POLICY": "ACTIVE"}, "30000000000")],
    ids=["ours", "user's spins", "user's policy"],
)
def test_threads_spin_shortly_unless_the_user_says_otherwise(variables, spins):
    assert f"GOMP_SPINCOUNT = '{spins}'" in run(PREPARED, **variables)[1]


@is_linux
def test_the_command_prepares_its_threads():
    program = "import sys; sys.argv = ['v2m', 'list', 'v2m_nano']; from v2m.cli import main; main()"
    assert "GOMP_SPINCOUNT = '10000'" in run(f"{program}; import torch")[1]


@pytest.mark.parametrize("name", [*COUNT_VARIABLES, "OTHER"])
def test_the_users_number_of_threads_stays(name):
    program = PREPARED.replace(
        "share_cores()", "before = len(sys.meta_path); share_cores(); print(len(sys.meta_path) - before)"
    )
    waits, threads = run(f"{program}print(torch.get_num_threads())", **{name: "1"})[0].split()
    assert (int(waits), name == "OTHER" or int(threads) == 1) == (name == "OTHER", True)


def test_cores_of_other_work_are_left_to_it():
    before = CpuTime.now()
    spinning = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        time.sleep(1.5)
        others = before.others_until(CpuTime.now())
    finally:
        spinning.kill()
        spinning.wait()
    # Whatever else runs here, it had something of a core.
    assert 0.2 < others < machine.allowed_cores() + 0.2


def test_own_work_is_no_other_work():
    assert CpuTime(10.0, 5.0, 100.0).others_until(CpuTime(12.0, 7.0, 103.0)) == 0.5
    assert CpuTime(10.0, 5.0, 100.0).others_until(CpuTime(10.1, 5.0, 101.0)) == 0.0, "too short to tell"


def test_threads_have_a_core_each(monkeypatch):
    monkeypatch.setattr("v2m.system.threads.allowed_cores", machine.allowed_cores)
    monkeypatch.setattr(machine.os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    monkeypatch.setattr(machine, "OWN_CGROUPS", machine.Path("nowhere"))
    assert [threads_beside(others, 8) for others in (0.0, 0.4, 1.3, 7.9, 12.0)] == [8, 8, 7, 1, 1]
    assert threads_beside(1.3, 4) == 4, "PyTorch takes no more, such as where cores have two threads"


@pytest.mark.parametrize(
    ("own", "files", "expected"),
    [
        ("0::/a/b\n", {"a/b/cpu.max": "max 100000\n", "a/cpu.max": "250000 100000\n"}, 2),
        ("0::/a\n", {"cpu.max": "50000 100000\n"}, 1),
        ("0::/\n", {"cpu.max": "max 100000\n"}, 8),
        (
            "4:cpu,cpuacct:/docker/1\n3:memory:/x\n",
            {"cpu/cpu.cfs_quota_us": "300000\n", "cpu/cpu.cfs_period_us": "100000\n"},
            3,
        ),
        ("4:cpu:/\n", {"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, 8),
        ("3:memory:/x\n", {}, 8),
    ],
)
def test_cores_of_a_container_are_those_of_its_quota(tmp_path, monkeypatch, own, files, expected):
    monkeypatch.setattr(machine.os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    monkeypatch.setattr(machine, "CGROUPS", tmp_path / "groups")
    monkeypatch.setattr(machine, "OWN_CGROUPS", tmp_path / "own")
    (tmp_path / "own").write_text(own)
    for name, text in files.items():
        (tmp_path / "groups" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "groups" / name).write_text(text)
    assert machine.cores() == expected
