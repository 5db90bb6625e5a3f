import doctest
import importlib
import inspect
import pkgutil
import subprocess
import sys

import pytest

import v2m
from v2m import layers, models, ops

ROOMS = (ops, layers, models)
MODULES = [room.__name__ for room in ROOMS] + [
    module.name for room in ROOMS for module in pkgutil.walk_packages(room.__path__, f"{room.__name__}.")
]


def test_public_names():
    operators = {"selective_scan", "selective_scan_2d", "directional_pass", "use_implementation"}
    mixers = {kind.__name__ for kind in layers.MIXERS.values()}
    classes = {"V2M", "V2MConfig", "HierarchicalV2M", "HierarchicalV2MConfig"}
    functions = {"create_model", "list_models", "load", "train"}
    assert set(v2m.__all__) == {"__version__"} | operators | mixers | classes | functions
    for name in v2m.__all__:
        assert name == "__version__" or f"``{name}``" in v2m.__doc__


@pytest.mark.parametrize("module", [v2m, *ROOMS], ids=lambda module: module.__name__)
def test_every_public_name_exists_and_is_documented(module):
    for name in module.__all__:
        value = getattr(module, name)
        if inspect.isclass(value) or inspect.isroutine(value):
            assert value.__doc__, name


def test_version():
    assert v2m.__version__.split(".")[:2] == ["0", "1"]


def test_import_needs_no_triton_and_wakes_no_gpu():
    code = """
import sys
sys.modules["triton"] = None
import v2m, torch
assert not torch.cuda.is_initialized()
y = v2m.create_model("v2m_nano", depth=1)(torch.zeros(1, 3, 8, 8))
assert y.shape == (1, 1000)
"""
    result = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, timeout=60
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout == result.stderr == ""


@pytest.mark.parametrize("name", MODULES)
def test_docstring_examples(name):
    if "triton" in name:
        pytest.importorskip("triton")
    results = doctest.testmod(importlib.import_module(name))
    assert results.failed == 0


@pytest.mark.parametrize("thing", [v2m.selective_scan, v2m.selective_scan_2d, layers.V2MMixer, models.V2M])
def test_main_entries_have_an_example(thing):
    assert any(test.examples for test in doctest.DocTestFinder(recurse=False).find(thing))
