"""torch.compile and torch.export of whole models."""

import shutil

import pytest
import torch

from tests.helpers import assert_close
from v2m.models import V2M

has_compiler = any(shutil.which(name) for name in ("g++", "clang++", "c++"))


def small(**settings):
    return V2M(**dict(img_size=16, patch_size=8, embed_dim=16, depth=2, d_state=2, num_classes=3) | settings)


def output_and_gradients(model, x):
    model.zero_grad()
    x = x.clone().requires_grad_()
    y = model(x)
    y.square().sum().backward()
    return {"output": y, "input": x.grad} | {name: p.grad.clone() for name, p in model.named_parameters()}


def check(compiled, model):
    x = torch.randn(2, 3, 16, 16)
    expected = output_and_gradients(model, x)
    actual = output_and_gradients(compiled, x)
    for name, value in actual.items():
        assert_close(value, expected[name.removeprefix("_orig_mod.")], "compiled", name)


@pytest.mark.parametrize(
    "settings", [{}, dict(directions="released"), dict(class_token="edge", patch_size=(8, 4))]
)
def test_captured_whole_with_its_backward(settings):
    model = small(**settings)
    check(torch.compile(model, fullgraph=True, backend="aot_eager"), model)


@pytest.mark.skipif(
    not has_compiler, reason="torch.compile on a CPU needs a C++ compiler: g++, clang++ or c++"
)
def test_compiled():
    model = small()
    check(torch.compile(model, fullgraph=True), model)


@pytest.mark.parametrize("settings", [{}, dict(class_token="middle", directions="corners_rows_first")])
def test_exported_with_any_batch_size(settings):
    model = small(**settings).eval()
    batch = torch.export.Dim("batch", min=1, max=64)
    program = torch.export.export(model, (torch.randn(2, 3, 16, 16),), dynamic_shapes=({0: batch},)).module()
    for size in (2, 5, 1):
        x = torch.randn(size, 3, 16, 16)
        assert_close(program(x), model(x), "compiled", f"batch {size}")
