"""torch.compile and torch.export of whole models."""

import shutil
import warnings

import pytest
import torch

import v2m
from tests.helpers import assert_close
from v2m.models import V2M
from v2m.models.config import PLAIN

has_compiler = any(shutil.which(name) for name in ("g++", "clang++", "c++"))


@pytest.fixture(autouse=True)
def _forget_compiled_models():
    """PyTorch compiles one function a few times only, and all models of a class have one forward."""
    torch.compiler.reset()


def small(**settings):
    return V2M(**dict(img_size=16, patch_size=8, embed_dim=16, depth=2, d_state=2, num_classes=3) | settings)


def output_and_gradients(model, x):
    model.zero_grad()
    x = x.clone().requires_grad_()
    y = model(x)
    y.square().sum().backward()
    return {"output": y, "input": x.grad} | {name: p.grad.clone() for name, p in model.named_parameters()}


def check(compiled, model, shape=(2, 3, 16, 16)):
    x = torch.randn(shape)
    expected = output_and_gradients(model, x)
    actual = output_and_gradients(compiled, x)
    for name, value in actual.items():
        assert_close(value, expected[name.removeprefix("_orig_mod.")], "compiled", name)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        dict(directions="released"),
        dict(class_token="edge", patch_size=(8, 4)),
        dict(mixer="exact"),
        dict(mixer="exact", sweeps=2),
        dict(mixer="raster"),
        dict(window=1),
        dict(window=1, decay="geometric"),
        dict(attention_blocks=1),
    ],
)
def test_captured_whole_with_its_backward(settings):
    model = small(**settings)
    check(torch.compile(model, fullgraph=True, backend="aot_eager"), model)


@pytest.mark.parametrize("name", v2m.list_models())
def test_every_model_is_captured_whole(name):
    shallow = dict(depth=1, embed_dim=32) if name in PLAIN else dict(depths=(1,) * 4, embed_dim=(32,) * 4)
    model = v2m.create_model(name, num_classes=3, img_size=32, in_chans=1, **shallow)
    check(torch.compile(model, fullgraph=True, backend="aot_eager"), model, (2, 1, 32, 32))


@pytest.mark.skipif(
    not has_compiler, reason="torch.compile on a CPU needs a C++ compiler: g++, clang++ or c++"
)
@pytest.mark.filterwarnings("ignore:.torch.jit.script_method. is deprecated")  # PyTorch 2.11 does so itself
@pytest.mark.parametrize("decay", ["free", pytest.param("geometric", marks=pytest.mark.slow)])
def test_compiled(decay):
    model = small(decay=decay)
    check(torch.compile(model, fullgraph=True), model)


@pytest.mark.parametrize(
    "settings", [{}, dict(class_token="middle", directions="corners_rows_first"), dict(decay="geometric")]
)
def test_exported_with_any_batch_size(settings):
    model = small(**settings).eval()
    batch = torch.export.Dim("batch", min=1, max=64)
    program = torch.export.export(model, (torch.randn(2, 3, 16, 16),), dynamic_shapes=({0: batch},)).module()
    for size in (2, 5, 1):
        x = torch.randn(size, 3, 16, 16)
        assert_close(program(x), model(x), "compiled", f"batch {size}")


def test_a_light_model_in_onnxruntime(tmp_path):
    """Any batch, in the runtime that phones have."""
    from onnxruntime import InferenceSession

    model = v2m.create_model("v2m_lite_nano", num_classes=3, img_size=64, depths=(1, 1, 1, 1)).eval()
    batch = torch.export.Dim("batch")
    program = torch.export.export(model, (torch.randn(2, 3, 64, 64),), dynamic_shapes=({0: batch},))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the exporter, about itself
        torch.onnx.export(program, f=tmp_path / "model.onnx", dynamo=True, verbose=False)
    session = InferenceSession(tmp_path / "model.onnx", providers=["CPUExecutionProvider"])
    x = torch.randn(5, 3, 64, 64)
    (name,) = (argument.name for argument in session.get_inputs())
    (logits,) = session.run(None, {name: x.numpy()})
    assert_close(torch.from_numpy(logits), model(x), "compiled")


def test_blocks_that_are_computed_again():
    model = small()
    model.set_grad_checkpointing()
    check(torch.compile(model, fullgraph=True, backend="aot_eager"), model)


def test_a_compiled_model_takes_the_implementation_of_its_context():
    model, x = small().eval(), torch.randn(2, 3, 16, 16)
    operators = []

    def backend(graph, inputs):
        operators.append({str(node.target) for node in graph.graph.nodes if "v2m" in str(node.target)})
        return graph.forward

    compiled = torch.compile(model, fullgraph=True, backend=backend)
    with torch.no_grad():
        expected = compiled(x)
        with v2m.ops.use_implementation("reference"):
            assert_close(compiled(x), expected, "compiled")
        assert torch.equal(compiled(x), expected)
    assert [bool(found) for found in operators] == [True, False]


@pytest.mark.parametrize("part", ["blocks", "blocks.0", "stages", "stages.1", "stages.1.0"])
def test_a_part_compiled_in_place(part):
    graphs = []

    def backend(graph, inputs):
        graphs.append(graph)
        return graph.forward

    if part.startswith("blocks"):
        model = small()
    else:
        model = v2m.create_model("v2m_lite_nano", img_size=32, depths=(1,) * 4, embed_dim=(8,) * 4)
    x = torch.randn(2, 3, 16, 16)
    with torch.no_grad():
        expected = model(x)
        model.get_submodule(part).compile(backend=backend)
        assert_close(model(x), expected, "compiled")
    assert graphs
