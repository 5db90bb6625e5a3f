import threading

import pytest
import torch

import v2m
from tests.helpers import assert_close
from tests.ops.inputs import FAST, needs_compiler, pass_arguments, scan_arguments, value_and_gradients
from v2m.ops import directional_pass, dispatch, selective_scan, use_implementation
from v2m.ops.directional.interface import PASS
from v2m.ops.kernels import cpu, pytorch
from v2m.ops.kernels.build import KernelError
from v2m.ops.scan.interface import SCAN

CALLED = {
    (SCAN, "oracle"): "reference",
    (PASS, "oracle"): "reference",
    **{
        (module, f"{operator}_{direction}"): f"{name} {direction}"
        for module, name in ((cpu, "cpu"), (pytorch, "pytorch"))
        for operator in ("scan", "pass")
        for direction in ("forward", "backward")
    },
}


@pytest.fixture
def called(monkeypatch):
    """What ran, in order."""
    names = []

    def spy(function, name):
        def run(*args):
            names.append(name)
            return function(*args)

        return run

    for (module, function), name in CALLED.items():
        monkeypatch.setattr(module, function, spy(getattr(module, function), name))
    return names


def scan(dtype=torch.float32, **options):
    return value_and_gradients(selective_scan, scan_arguments(3, 4, dtype=dtype), **options)


def directional(dtype=torch.float32, **options):
    return value_and_gradients(directional_pass, pass_arguments(3, 4, dtype=dtype), selects="B", **options)


BOTH = pytest.mark.parametrize("run", [scan, directional])


@needs_compiler
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@BOTH
def test_cpu_kernels_are_the_default(run, dtype, called):
    run(dtype)
    assert called == ["cpu forward", "cpu backward"]


@BOTH
def test_float64_goes_to_the_reference(run, called):
    run(torch.float64)
    assert called == ["reference"]


@BOTH
def test_onnx_export_goes_to_the_reference(run, called, monkeypatch):
    monkeypatch.setattr(torch.onnx, "is_in_onnx_export", lambda: True)
    run()
    assert called == ["reference"]
    run(implementation="pytorch")
    assert called[1] == "pytorch forward"


@BOTH
def test_without_cpu_kernels_pytorch_is_used(run, called, monkeypatch):
    monkeypatch.setattr(dispatch, "is_available", lambda: False)
    run()
    assert set(called) == {"pytorch forward", "pytorch backward"}


@BOTH
def test_cpu_kernels_that_are_asked_for_must_be_there(run, monkeypatch):
    def library():
        raise KernelError("no C++ compiler was found")

    monkeypatch.setattr(dispatch, "library", library)
    with pytest.raises(KernelError, match=r"no C\+\+ compiler"):
        run(implementation="cpu")


@pytest.mark.parametrize("implementation", FAST)
@BOTH
def test_implementation_that_is_asked_for(run, implementation, called):
    run(implementation=implementation)
    assert set(called) == {f"{implementation} forward", f"{implementation} backward"}


def test_use_implementation(called):
    def used(*args, **options):
        called.clear()
        scan(*args, **options)
        return called[0]

    with use_implementation("pytorch"):
        assert used() == "pytorch forward"
        with use_implementation("reference"):
            assert used() == "reference"
            assert used(implementation="pytorch") == "pytorch forward"
        assert used() == "pytorch forward"
        with use_implementation(None):  # as if there was none
            assert used(torch.float64) == "reference"
        assert used() == "pytorch forward"
    assert used(torch.float64) == "reference"


def test_use_implementation_is_undone_by_an_exception(called):
    with pytest.raises(ZeroDivisionError), use_implementation("reference"), use_implementation("pytorch"):
        raise ZeroDivisionError
    scan(torch.float64)  # which "pytorch" does not take
    assert called == ["reference"]


def test_use_implementation_concerns_its_own_thread(called):
    entered, left = threading.Event(), threading.Event()

    def other():
        with use_implementation("pytorch"):
            entered.set()
            left.wait(10)

    with use_implementation("reference"):
        thread = threading.Thread(target=other)
        thread.start()
        entered.wait(10)
        scan()
    left.set()  # the one that entered first left first
    thread.join()
    scan(implementation=None)
    assert called[0] == "reference"
    assert called[1] != "reference"


@pytest.mark.parametrize("name", ["cuda", "", 1])
def test_use_implementation_of_no_such_name(name):
    choices = "'reference', 'cpu', 'triton', 'pytorch'"
    with pytest.raises(ValueError, match="use_implementation") as error, use_implementation(name):
        pass
    assert str(error.value) == f"use_implementation: implementation is {name!r}, expected one of {choices}"


def test_use_implementation_takes_no_float64():
    with use_implementation("pytorch"), pytest.raises(ValueError, match="takes no float64"):
        scan(torch.float64)


@pytest.mark.parametrize("implementation", FAST)
def test_model(implementation, called):
    model = v2m.create_model("v2m_nano", img_size=(40, 24), num_classes=10).eval()
    image = torch.randn(2, 3, 40, 24)
    results = []
    for name in ("reference", implementation):
        model.zero_grad()
        called.clear()
        with use_implementation(name):
            logits = model(image)
            logits.square().sum().backward()
        used = {name} if name == "reference" else {f"{name} forward", f"{name} backward"}
        assert set(called) == used
        results.append({"logits": logits} | {k: p.grad.clone() for k, p in model.named_parameters()})
    expected, actual = results
    for name, value in actual.items():
        assert_close(value, expected[name], "golden model float32", name)


@pytest.mark.parametrize("settings", [dict(depth=2), dict(depth=2, mixer="raster")])
def test_blocks_are_recomputed_as_they_were_computed(settings, called):
    model = v2m.create_model("v2m_nano", img_size=8, num_classes=2, **settings)
    model.set_grad_checkpointing()
    with use_implementation("reference"):
        y = model(torch.randn(1, 3, 8, 8))
    y.sum().backward()
    assert set(called) == {"reference"}
    called.clear()
    with use_implementation("pytorch"):
        y = model(torch.randn(1, 3, 8, 8))
    with use_implementation("reference"):
        y.sum().backward()
    assert set(called) == {"pytorch forward", "pytorch backward"}
