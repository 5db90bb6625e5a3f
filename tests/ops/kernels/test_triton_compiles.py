"""Every Triton kernel, compiled for GPUs that need not be there, as its launcher would launch it.

The launchers run on tensors without memory; what they launch is compiled and not run. Registers may be
spilled outside of the loops over cells, where it costs nothing.
"""

import re
import subprocess
import tempfile
from pathlib import Path

import pytest
import torch

from tests.ops.kernels.conftest import INTERPRETS
from v2m.ops.scan.arguments import ScanInputs
from v2m.ops.scan_2d.arguments import Scan2dInputs

triton = pytest.importorskip("triton")
TOOL = Path(triton.__file__).parent / "backends/nvidia/bin/nvdisasm"

pytestmark = [
    pytest.mark.skipif(INTERPRETS, reason="the interpreter compiles nothing"),
    pytest.mark.skipif(not TOOL.exists(), reason="this Triton brings no tools for NVIDIA GPUs"),
]

TARGETS = [80, 90, 100]
DTYPES = {torch.float32: "*fp32", torch.bfloat16: "*bf16", torch.float16: "*fp16"}
# Compiling takes seconds: all that is compiled differently is tried for one target, the extremes for each.
CASES = [
    *((target, states, torch.bfloat16, False) for target in TARGETS for states in (16, 64)),
    (90, 8, torch.bfloat16, False),
    (90, 16, torch.float32, False),
    (90, 16, torch.float16, False),
    *((target, 16, torch.bfloat16, True) for target in TARGETS),
    (90, 64, torch.bfloat16, True),
]
# Instructions from which on a loop is one over cells, and the share of them that may move spilled registers.
LOOP, SPILLS = 100, 0.01


@pytest.fixture
def launches(monkeypatch):
    """A function that calls another and returns what that launches: kernels, arguments and constants."""

    def launched(function, *arguments):
        found = []
        with monkeypatch.context() as patch:
            patch.setattr(
                triton.runtime.jit.JITFunction,
                "run",
                lambda kernel, *args, grid, warmup, **constants: found.append((kernel, args, constants)),
            )
            function(*arguments)
        assert found
        return found

    return launched


def compiled(kernel, args, constants, target):
    """The machine code of a launch."""
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    options = {name: value for name, value in constants.items() if name not in kernel.arg_names}
    values = dict(zip(kernel.arg_names, args, strict=False)) | constants
    signature, fixed = {}, {}
    for parameter in kernel.params:
        value = values[parameter.name]
        if parameter.is_constexpr or value is None:
            signature[parameter.name], fixed[parameter.name] = "constexpr", value
        else:
            signature[parameter.name] = DTYPES[value.dtype] if torch.is_tensor(value) else "i32"
    source = ASTSource(kernel, signature, fixed)
    return triton.compile(source, target=GPUTarget("cuda", target, 32), options=options).asm["cubin"]


def spills(cubin):
    """Of each innermost loop over cells, the share of instructions that move spilled registers."""
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        text = subprocess.run([TOOL, "-c", file.name], capture_output=True, text=True, check=True).stdout
    code, labels = [], {}
    for line in text.splitlines():
        if label := re.match(r"(\.L_x_\d+):", line):
            labels[label[1]] = len(code)
        elif instruction := re.match(r"\s+/\*[0-9a-f]{4,}\*/\s+(.*?);", line):
            code.append(instruction[1])
    assert code
    ends = [(re.search(r"BRA.*`\((\.L_x_\d+)\)", instruction), i) for i, instruction in enumerate(code)]
    loops = [(labels[end[1]], i) for end, i in ends if end and labels[end[1]] <= i - LOOP]
    inner = [a for a in loops if not any(b != a and a[0] <= b[0] and b[1] <= a[1] for b in loops)]
    return [
        sum(bool(re.search(r"\b(LDL|STL)\b", x)) for x in code[begin:end]) / (end - begin)
        for begin, end in inner
    ]


def empty(*shape, dtype=torch.float32):
    return torch.empty(shape, dtype=dtype, device="meta")


def scans(states, dtype, is_geometric):
    """A scan of a mixer with two directions, and that of a pass by rows and by columns."""

    def of(channels):
        return empty(1, 14, 14, channels, dtype=dtype)

    A, vector = empty(96) if is_geometric else empty(96, states), empty(96)
    plain = ScanInputs(
        of(96), of(96), A, of(states), of(states), vector, None, vector, True, "row", False, None
    )
    low = plain._replace(delta=of(6), gate=of(96), delta_weight=empty(96, 6))
    return [plain, low._replace(B=None), low._replace(C=None, axis="col", reverse=True)]


def check(found, target, has_loop=True):
    for kernel, args, constants in found:
        shares = spills(compiled(kernel, args, constants, target))
        assert bool(shares) == has_loop, kernel.__name__
        assert all(share < SPILLS for share in shares), f"{kernel.__name__} {constants}: {shares}"


def check_scan(launches, s, target):
    from v2m.ops.kernels import triton as kernels

    check(launches(kernels.scan_forward, s), target)
    check(launches(kernels.scan_backward, s.u, s), target)


def test_pass_of_the_models(launches):
    _, by_row, _ = scans(16, torch.bfloat16, is_geometric=False)
    check_scan(launches, by_row, 90)


@pytest.mark.slow
@pytest.mark.parametrize(("target", "states", "dtype", "is_geometric"), CASES)
def test_scan(launches, target, states, dtype, is_geometric):
    for s in scans(states, dtype, is_geometric):
        check_scan(launches, s, target)


@pytest.mark.slow
@pytest.mark.parametrize(("target", "states", "dtype", "is_geometric"), CASES)
def test_scan_2d(launches, target, states, dtype, is_geometric):
    from v2m.ops.kernels import triton as kernels

    def of(channels):
        return empty(1, 14, 14, channels, dtype=dtype)

    A = empty(96) if is_geometric else empty(96, states)
    # Sweeps with 64 states spill in the backward: a program of one row has no more warps for them.
    for sweeps in (None, 2) if states < 64 else (None,):
        s = Scan2dInputs(
            of(96), of(96), of(96), A, A, *(of(states) for _ in range(6)), True, False, True, sweeps
        )
        check(launches(kernels.scan_2d_forward, s), target)
        check(launches(kernels.scan_2d_backward, s.u, s), target)


@pytest.mark.slow
@pytest.mark.parametrize("target", TARGETS)
def test_convolution(launches, target):
    from v2m.ops.kernels import triton as kernels

    x, weight, bias = empty(1, 14, 14, 96, dtype=torch.bfloat16), empty(96, 4), empty(96)
    check(launches(kernels.conv_silu_forward, x, weight, bias, "row", False), target, has_loop=False)
    check(launches(kernels.conv_silu_backward, x, x, weight, bias, "col", True), target)
