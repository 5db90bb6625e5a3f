"""The table of tolerances, the golden files, and whether there is a C++ compiler.

A difference passes if it is at most ``atol + rtol * |expected| + largest * max |expected|``.
"""

import os
import shutil
from pathlib import Path

from safetensors.torch import load_file

TOLERANCES = {
    "golden float64": dict(atol=1e-12),
    "golden float32": dict(atol=1e-6),
    "golden float32 gradient": dict(largest=5e-6),
    "golden model float32": dict(largest=2e-5),
    # One formula computed in two orders.
    "float64": dict(atol=1e-12, rtol=1e-12),
    "float32": dict(largest=3e-6),
    # Gradients of parameters are sums that cancel.
    "float32 gradient": dict(largest=1e-5),
    # So are those of geometric rates, and the decay of state n is off by up to n roundings.
    "float32 powers gradient": dict(largest=5e-5),
    # Decays and steps below 2^-125 are that, which shows where all numbers are tiny.
    "float32 underflow": dict(atol=1e-30, largest=1e-5),
    # A float32 result rounded once.
    "bfloat16 rounding": dict(rtol=2**-8, largest=3e-6),
    "float16 rounding": dict(rtol=2**-10, largest=3e-6),
    "bfloat16 gradient": dict(rtol=2**-8, largest=1e-5),
    "float16 gradient": dict(rtol=2**-10, largest=1e-5),
    # Matrix products of a whole layer or model in the low precision.
    "bfloat16 layers": dict(largest=1.5e-2),
    "float16 layers": dict(largest=2e-3),
    "bfloat16 layers gradient": dict(largest=5e-2),
    "float16 layers gradient": dict(largest=6e-3),
    "bfloat16 model": dict(largest=5e-2),
    "compiled": dict(atol=1e-6, largest=1e-5),
}

has_compiler = bool(os.environ.get("CXX")) or any(map(shutil.which, ("c++", "g++", "clang++")))

REPOSITORY = Path(__file__).parents[1]
GOLDEN = {path.stem: path for path in sorted((REPOSITORY / "tests" / "golden").glob("*.safetensors"))}
"""Files of numbers that this package must reproduce, by name."""


def assert_close(actual, expected, rule, what=""):
    """Compare values and shapes (not dtypes) under a rule of ``TOLERANCES``."""
    actual, expected = actual.detach().double(), expected.detach().double()
    assert actual.shape == expected.shape, f"{what}: {tuple(actual.shape)}, expected {tuple(expected.shape)}"
    error, size = (actual - expected).abs(), expected.abs()
    limit = TOLERANCES[rule].get("atol", 0.0) + TOLERANCES[rule].get("rtol", 0.0) * size
    if size.numel():
        limit = limit + TOLERANCES[rule].get("largest", 0.0) * size.max()
    assert bool((error <= limit).all()), f"{what}: off by up to {error.max():.3g}, rule {rule!r}"


def load_golden(name):
    """Tensors of a golden file; a float64 model file is completed from its float32 partner."""
    tensors = load_file(GOLDEN[name])
    if name.startswith("model_") and name.endswith("_f64"):
        partner = load_file(GOLDEN[name.removesuffix("f64") + "f32"])
        shared = {k: v.double() for k, v in partner.items() if k == "image" or k.startswith("param.")}
        tensors = shared | tensors
    return tensors


def parameters(tensors):
    """The state dict of a golden file, under the released names."""
    return {
        name.removeprefix("param."): value for name, value in tensors.items() if name.startswith("param.")
    }
