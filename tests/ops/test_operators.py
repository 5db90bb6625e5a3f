"""The operators as PyTorch sees them: registration, compilation, autocast, memory, threads."""

import random
from functools import partial

import pytest
import torch
from torch._dynamo.testing import CompileCounterWithBackend
from torch.library import opcheck

from tests.helpers import assert_close
from tests.ops.inputs import (
    FAST,
    assert_parity,
    needs_compiler,
    pass_arguments,
    scan_2d_arguments,
    scan_arguments,
    value_and_gradients,
)
from v2m.layers import V2MMixer
from v2m.ops import directional_pass, selective_scan, selective_scan_2d, use_implementation
from v2m.ops.kernels import cpu

OPS = torch.ops.v2m
OPERATORS = [
    pytest.param(selective_scan, scan_arguments, dict(delta_softplus=True), id="scan"),
    pytest.param(directional_pass, pass_arguments, dict(selects="B"), id="pass"),
    pytest.param(
        selective_scan, partial(scan_arguments, is_geometric=True), dict(axis="col"), id="scan geometric"
    ),
    pytest.param(
        directional_pass, partial(pass_arguments, is_geometric=True), dict(selects="C"), id="pass geometric"
    ),
    pytest.param(selective_scan_2d, scan_2d_arguments, dict(delta_softplus=True), id="scan_2d"),
    pytest.param(selective_scan_2d, scan_2d_arguments, dict(sweeps=2), id="scan_2d swept"),
    pytest.param(
        selective_scan_2d, partial(scan_2d_arguments, is_geometric=True), {}, id="scan_2d geometric"
    ),
]
EACH = pytest.mark.parametrize(("operator", "arguments", "options"), OPERATORS)
ALONG_AN_AXIS = pytest.mark.parametrize(("operator", "arguments", "options"), OPERATORS[:4])


def registered_scan_arguments(left_out, axis, reverse, implementation, **kind):
    tensors = scan_arguments(3, 4, states=3, **{"dtype": torch.float32} | kind)
    values = (None if name in left_out else value for name, value in tensors.items())
    return (*values, True, axis, reverse, implementation)


def registered_pass_arguments(selects, axis, reverse, implementation, **kind):
    tensors = pass_arguments(3, 4, states=3, **{"dtype": torch.float32} | kind)
    return (*tensors.values(), selects, axis, reverse, implementation)


def registered_scan_2d_arguments(corner, sweeps, implementation, **kind):
    tensors = scan_2d_arguments(3, 4, states=3, **{"dtype": torch.float32} | kind)
    values = (value for name, value in tensors.items() if name not in "Dz")
    return (*values, True, *corner, sweeps, implementation)


SCANS = [
    ((), "row", False, None),
    (("B",), "col", True, None),
    (("C", "D"), "col", False, "pytorch"),
    (("B", "C", "D", "z", "delta_bias"), "row", True, "pytorch"),
    ((), "row", False, None, dict(dtype=torch.bfloat16)),
    (("B",), "row", False, None, dict(is_geometric=True)),
]
PASSES = [
    ("B", "row", False, None),
    ("C", "col", True, None),
    ("B", "col", True, "pytorch"),
    ("C", "row", False, "pytorch"),
    ("C", "row", False, None, dict(dtype=torch.bfloat16)),
    ("B", "col", False, None, dict(is_geometric=True)),
    ("C", "row", True, "pytorch", dict(is_geometric=True)),
]
SCANS_2D = [
    ((False, False), None, None),
    ((True, False), 2, None),
    ((False, True), None, "pytorch"),
    ((True, True), 0, "pytorch"),
    ((False, False), None, None, dict(dtype=torch.bfloat16)),
    ((False, True), None, None, dict(is_geometric=True)),
]
CALLS = [
    *(pytest.param(OPS.selective_scan, registered_scan_arguments, call, id=f"scan {call}") for call in SCANS),
    *(pytest.param(OPS.directional_pass, registered_pass_arguments, c, id=f"pass {c}") for c in PASSES),
    *(
        pytest.param(OPS.selective_scan_2d, registered_scan_2d_arguments, call, id=f"scan_2d {call}")
        for call in SCANS_2D
    ),
]
BACKWARD = {
    OPS.selective_scan: OPS.selective_scan_backward,
    OPS.directional_pass: OPS.directional_pass_backward,
    OPS.selective_scan_2d: OPS.selective_scan_2d_backward,
}


# opcheck itself reads the gradients of copies.
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")
@pytest.mark.parametrize(("operator", "arguments", "call"), CALLS)
def test_forward_is_registered_well(operator, arguments, call):
    *options, kind = call if isinstance(call[-1], dict) else (*call, {})
    inputs = arguments(*options, **kind)
    opcheck(operator.default, inputs)
    leaves = [value.requires_grad_() if isinstance(value, torch.Tensor) else value for value in inputs]
    opcheck(operator.default, tuple(leaves))
    opcheck(operator.default, (leaves[0].detach(), leaves[1].detach(), *leaves[2:]))


@pytest.mark.parametrize(("operator", "arguments", "call"), CALLS)
def test_backward_is_registered_well(operator, arguments, call):
    *options, kind = call if isinstance(call[-1], dict) else (*call, {})
    inputs = arguments(*options, **kind)
    opcheck(BACKWARD[operator].default, (torch.randn_like(inputs[0]), *inputs))


@pytest.fixture
def counter():
    """A backend that captures forward and backward and counts what it is given."""
    torch._dynamo.reset()
    yield CompileCounterWithBackend("aot_eager")
    torch._dynamo.reset()


@EACH
def test_compiled(operator, arguments, options, counter):
    tensors = arguments(3, 4, dtype=torch.float32)
    compiled = torch.compile(operator, fullgraph=True, backend=counter)
    actual = value_and_gradients(compiled, tensors, **options)
    expected = value_and_gradients(operator, tensors, **options)
    for name, value in actual.items():
        assert_close(value, expected[name], "compiled", name)
    assert counter.frame_count == 1


@pytest.mark.parametrize("dynamic", [True, None])
@EACH
def test_compiled_for_other_sizes(operator, arguments, options, dynamic, counter):
    compiled = torch.compile(operator, fullgraph=True, backend=counter, dynamic=dynamic)
    # Unlike each other and the other sizes, since the compiler takes equal ones for one.
    for height, width, batch in ((5, 6, 7), (8, 9, 10), (11, 7, 5)):
        tensors = arguments(height, width, batch, dtype=torch.float32)
        actual = value_and_gradients(compiled, tensors, **options)
        expected = value_and_gradients(operator, tensors, **options)
        for name, value in actual.items():
            assert_close(value, expected[name], "compiled", f"{name}, {height}x{width}")
    assert counter.frame_count <= (1 if dynamic else 2)


@EACH
def test_compiled_again_for_another_implementation(operator, arguments, options, counter):
    compiled = torch.compile(operator, fullgraph=True, backend=counter)
    tensors = arguments(3, 4, dtype=torch.float32)
    frames = []
    for implementation in (None, "reference", "pytorch", None):
        with use_implementation(implementation):
            y = compiled(**tensors, **options)
        assert_close(y, operator(**tensors, **options), "compiled")
        frames.append(counter.frame_count)
    assert frames == [1, 2, 3, 3]


def test_compiled_mixer(counter):
    mixer = V2MMixer(8, d_state=3)
    compiled = torch.compile(mixer, fullgraph=True, backend=counter)
    for height, width, batch in ((3, 4, 2), (5, 7, 3), (6, 2, 5)):
        x = torch.randn(batch, height, width, 8)
        for dim in range(3):
            torch._dynamo.mark_dynamic(x, dim)
        results = []
        for layer in (mixer, compiled):
            mixer.zero_grad()
            y = layer(x)
            y.square().sum().backward()
            results.append([y, *(parameter.grad.clone() for parameter in mixer.parameters())])
        for expected, actual in zip(*results, strict=True):
            assert_close(actual, expected, "compiled")
    assert counter.frame_count == 1


def test_exported_mixer():
    mixer = V2MMixer(8, d_state=3).eval()
    names = ("batch", "height", "width")
    any_size = {i: torch.export.Dim(name, min=1, max=64) for i, name in enumerate(names)}
    program = torch.export.export(mixer, (torch.randn(2, 3, 4, 8),), dynamic_shapes=(any_size,))
    graphs = [module.graph for module in program.graph_module.modules() if hasattr(module, "graph")]
    targets = [node.target for graph in graphs for node in graph.nodes]
    assert targets.count(OPS.directional_pass.default) == 8
    for shape in ((2, 3, 4, 8), (1, 7, 5, 8)):
        x = torch.randn(shape)
        assert_close(program.module()(x), mixer(x), "compiled")


@pytest.mark.parametrize("implementation", FAST)
@ALONG_AN_AXIS
def test_float32_under_autocast(operator, arguments, options, implementation):
    options = options | dict(implementation=implementation)
    low = arguments(4, 5, dtype=torch.bfloat16)
    tensors = {name: value.float() for name, value in low.items()}
    expected = operator(**tensors, **options)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(operator(**tensors, **options), expected)
        y = operator(**low, **options)
    assert y.dtype == torch.float32
    assert torch.equal(y, expected)


@pytest.mark.parametrize("implementation", FAST)
@EACH
def test_float32_backward_under_autocast(operator, arguments, options, implementation):
    tensors = arguments(4, 5, dtype=torch.float32)
    options = options | dict(implementation=implementation)
    expected = value_and_gradients(operator, tensors, **options)
    with torch.autocast("cpu", torch.bfloat16):
        actual = value_and_gradients(operator, tensors, **options)
    for name, value in actual.items():
        assert torch.equal(value, expected[name]), name


@EACH
def test_meta_tensors(operator, arguments, options):
    tensors = {k: v.to("meta").requires_grad_() for k, v in arguments(3, 4, dtype=torch.bfloat16).items()}
    y = operator(**tensors, **options)
    assert (y.device.type, y.shape, y.dtype) == ("meta", (2, 3, 4, 3), torch.bfloat16)
    y.sum().backward()
    for value in tensors.values():
        assert (value.grad.shape, value.grad.dtype) == (value.shape, torch.bfloat16)


def poisoned(function):
    def poison(*args, **kwargs):
        tensor = function(*args, **kwargs)
        return tensor.fill_(torch.nan) if tensor.is_floating_point() else tensor

    return poison


@pytest.mark.parametrize("implementation", FAST)
@EACH
def test_all_memory_is_written(operator, arguments, options, implementation, monkeypatch):
    cases = [arguments(*size, dtype=torch.float32) for size in ((1, 1), (5, 3), (2, 33))]
    expected = [value_and_gradients(operator, c, **options, implementation=implementation) for c in cases]
    for owner, name in ((torch, "empty"), (torch, "empty_like"), (torch.Tensor, "new_empty")):
        monkeypatch.setattr(owner, name, poisoned(getattr(owner, name)))
    for case, wanted in zip(cases, expected, strict=True):
        actual = value_and_gradients(operator, case, **options, implementation=implementation)
        for name, value in actual.items():
            assert torch.equal(value, wanted[name]), name


@needs_compiler
@EACH
def test_nothing_is_left_from_the_call_before(operator, arguments, options):
    options = options | dict(implementation="cpu")
    small = arguments(3, 5, channels=17, states=3, dtype=torch.float32)
    expected = value_and_gradients(operator, small, **options)
    large = arguments(1, 150, channels=70, states=20, dtype=torch.float32)
    value_and_gradients(operator, {k: torch.full_like(v, torch.nan) for k, v in large.items()}, **options)
    actual = value_and_gradients(operator, small, **options)
    for name, value in actual.items():
        assert torch.equal(value, expected[name]), name


@needs_compiler
@pytest.mark.parametrize("has_openmp", [True, False])
@EACH
def test_same_bits_with_any_number_of_threads(operator, arguments, options, has_openmp, monkeypatch):
    if not has_openmp:
        monkeypatch.setattr(cpu, "openmp_parallel", lambda: None)
    threads = torch.get_num_threads()
    # Enough work that three threads are worth it.
    tensors = arguments(16, 16, 8, channels=90, states=16, dtype=torch.float32)
    results = []
    try:
        for count in (1, 2, 3, 3, 1):
            torch.set_num_threads(count)
            results.append(value_and_gradients(operator, tensors, **options, implementation="cpu"))
    finally:
        torch.set_num_threads(threads)
    for result in results[1:]:
        for name, value in result.items():
            assert torch.equal(value, results[0][name]), name


@needs_compiler
@pytest.mark.parametrize("seed", range(40))
def test_random_configurations(seed):
    torch.manual_seed(seed)
    draw = random.Random(seed)
    height, width = draw.choice([1, 2, 3, 7, 31, 32, 33, 64, 65, 100]), draw.choice([1, 2, 3, 5])
    if draw.random() < 0.5:
        height, width = width, height
    sizes = dict(
        height=height,
        width=width,
        batch=draw.choice([1, 2, 3]),
        channels=draw.choice([2, 5, 15, 16, 17, 33, 48]),
        states=draw.choice([1, 2, 4, 5, 8, 9, 16, 17, 33]),
        dtype=torch.float32,
        is_geometric=draw.random() < 0.4,
    )
    options = dict(axis=draw.choice(["row", "col"]), reverse=draw.random() < 0.5, implementation="cpu")
    tensors = scan_arguments(**sizes)
    for name in ("B", "C", "D", "z", "delta_bias"):
        has_states = not sizes["is_geometric"] or name != "C" or "B" in tensors
        if draw.random() < 0.4 and has_states:
            del tensors[name]
    softplus = draw.random() < 0.5
    assert_parity(selective_scan, tensors, **options, delta_softplus=softplus, what=f"{sizes}, {options}")
    tensors = pass_arguments(**sizes, rank=draw.choice([1, 2, 5, 17]), taps=draw.choice([1, 2, 3, 4, 6]))
    assert_parity(directional_pass, tensors, **options, selects=draw.choice("BC"), what=f"{sizes}, {options}")
    tensors = scan_2d_arguments(**sizes)
    corner = dict(reverse_row=draw.random() < 0.5, reverse_col=draw.random() < 0.5)
    options = corner | dict(sweeps=draw.choice([None, 0, 1, 2, 5]), implementation="cpu")
    what = f"{sizes}, {options}"
    assert_parity(selective_scan_2d, tensors, **options, delta_softplus=softplus, what=what)
