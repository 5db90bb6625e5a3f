"""The C++ kernels compiled for other processors than this one."""

import platform
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.ops.inputs import (
    SENSES,
    assert_parity,
    needs_compiler,
    pass_arguments,
    scan_2d_arguments,
    scan_arguments,
)
from v2m.ops import directional_pass, selective_scan, selective_scan_2d
from v2m.ops.kernels import build

# Vectors of 4 floats, and of 8 with table look-up. All other tests run with those of this processor.
NEEDED = {"x86-64": set(), "haswell": {"avx2", "fma", "bmi1", "bmi2", "movbe", "f16c"}}


ONE_AFTER_THE_OTHER = """
import torch
from v2m.ops import selective_scan
from v2m.ops.kernels import build

def scan(length):
    u = torch.ones(1, 1, length, 64, requires_grad=True)
    selective_scan(u, torch.ones_like(u), -torch.ones(64, 16), implementation="cpu").sum().backward()
    return u.grad

native = build._command()
build._command = lambda: [word.replace("=native", "=x86-64") for word in native]
scan(20000)  # so much scratch memory that it begins beside a multiple of a wider vector
build._command = lambda: native
build.library.cache_clear()
assert scan(5).isfinite().all()
"""


def flags():
    found = re.search(r"^flags\s*:(.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    return set(found[1].split()) if found else set()


@pytest.fixture(scope="module", params=NEEDED)
def target(request, tmp_path_factory):
    """All tests of this file run with a library that is compiled for one processor."""
    if platform.machine() != "x86_64" or not Path("/proc/cpuinfo").exists():
        pytest.skip("for Linux on x86-64")
    if missing := NEEDED[request.param] - flags():
        pytest.skip(f"this processor has no {', '.join(sorted(missing))}")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        command = [word.replace("=native", f"={request.param}") for word in build._command()]
        patch.setattr(build, "_command", lambda: command)
        build.library.cache_clear()
        build.library()
        yield request.param
    build.library.cache_clear()


@needs_compiler
@pytest.mark.parametrize(("axis", "reverse"), SENSES)
@pytest.mark.parametrize(
    ("shape", "channels", "states"),
    # The last two have lines of several stretches, more than go side by side, and a last stretch of one cell.
    [
        ((5, 3), 17, 5),
        ((2, 70), 6, 16),
        ((7, 7), 40, 1),
        ((3, 4), 9, 33),
        ((130, 11), 18, 4),
        ((65, 9), 5, 2),
    ],
)
def test_parity(target, shape, channels, states, axis, reverse):
    options = dict(axis=axis, reverse=reverse, implementation="cpu")
    sizes = dict(channels=channels, states=states, dtype=torch.float32)
    tensors = scan_arguments(*shape, **sizes)
    for left_out in ("", "B", "C", "BC"):
        some = {name: value for name, value in tensors.items() if name not in left_out}
        assert_parity(selective_scan, some, delta_softplus=True, **options)
    tensors = pass_arguments(*shape, rank=3, taps=4, **sizes)
    for selects in ("B", "C"):
        assert_parity(directional_pass, tensors, selects=selects, **options)
    tensors = scan_2d_arguments(*shape, **sizes)
    for sweeps in (None, 0, 2):
        options = dict(reverse_row=reverse, sweeps=sweeps, implementation="cpu")
        assert_parity(selective_scan_2d, tensors, delta_softplus=True, **options)


@needs_compiler
def test_all_steps_and_rates_side_by_side(target):
    tensors = scan_arguments(40, 6, channels=17, states=5, dtype=torch.float32)
    steps = torch.logspace(-6, 2, tensors["delta"].numel())[torch.randperm(tensors["delta"].numel())]
    tensors |= {"delta": steps.view_as(tensors["delta"]), "A": -torch.logspace(-4, 4, 85).view(17, 5)}
    del tensors["delta_bias"]
    rules = ("float32 underflow", "float32 underflow")
    assert_parity(selective_scan, tensors, rules=rules, axis="col", implementation="cpu")


@needs_compiler
@pytest.mark.skipif(platform.machine() != "x86_64", reason="for x86-64")
def test_libraries_share_no_memory(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    done = subprocess.run([sys.executable, "-c", ONE_AFTER_THE_OTHER], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
