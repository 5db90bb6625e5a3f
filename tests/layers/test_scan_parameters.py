"""Geometric decay rates: one number for each channel, and the function of free rates in their proportions."""

import warnings

import pytest
import torch

from tests.helpers import assert_close
from v2m.layers import MIXERS, Decay
from v2m.layers.scan_parameters import decay_rates, initial_log_rates

SCANNING = {name: kind for name, kind in MIXERS.items() if "decay" in kind.settings()}
RATES = ("A_log", "A_2_log", "A_b_log")

SETTINGS = {
    "v2m": ("v2m", {}),
    "one gate": ("v2m", dict(single_gate=True, directions="corners_rows_first")),
    "windows": ("v2m", dict(window=2)),
    "conv": ("conv", {}),
    "conv by axis": ("conv", dict(use_gate=False, use_norm=True, use_axis_parameters=True)),
    "exact": ("exact", {}),
    "sweeps": ("exact", dict(sweeps=1)),
    "raster": ("raster", {}),
}


@pytest.fixture
def float64():
    """Parameters are made in float64, so that they are not rounded to float32 first."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def is_rate(name):
    return name.rpartition(".")[2] in RATES


def test_the_mixers_that_scan_have_a_decay():
    assert set(SCANNING) == {"v2m", "conv", "exact", "raster"}


def test_decay_rates():
    assert torch.equal(decay_rates(torch.zeros(3)), -torch.ones(3))
    assert_close(decay_rates(initial_log_rates(4)), -torch.arange(1.0, 5.0), "float32")


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("kind", SCANNING.values(), ids=SCANNING)
def test_geometric_rates_start_as_the_function_of_free_ones(kind):
    mixers, random = {}, {}
    for decay in Decay:
        torch.manual_seed(0)
        mixers[decay] = kind(16, decay=decay)
        random[decay] = torch.rand(1)
    free, geometric = mixers.values()
    assert torch.equal(*random.values())
    for (name, value), (other, expected) in zip(
        geometric.named_parameters(), free.named_parameters(), strict=True
    ):
        assert name == other
        if is_rate(name):
            assert torch.equal(value, torch.zeros(len(expected)))
        else:
            assert torch.equal(value, expected), name
    x = torch.randn(2, 4, 5, 16)
    assert_close(geometric(x), free(x), "float64")


def value_and_gradients(mixer, x, upstream):
    y = mixer(x)
    (y * upstream).sum().backward()
    return y, {name: parameter.grad for name, parameter in mixer.named_parameters()}


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("is_hooked", [False, True])
@pytest.mark.parametrize(("mixer", "settings"), SETTINGS.values(), ids=SETTINGS)
def test_geometric_rates_are_free_ones_in_their_proportions(mixer, settings, is_hooked):
    settings = dict(d_state=3) | settings
    geometric = MIXERS[mixer](6, **settings, decay="geometric")
    with torch.no_grad():
        for parameter in geometric.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    free = MIXERS[mixer](6, **settings)
    free.load_state_dict(
        {
            name: value.unsqueeze(1) + initial_log_rates(3) if is_rate(name) else value
            for name, value in geometric.state_dict().items()
        }
    )
    if is_hooked:  # layers are called then, one by one
        for module in geometric.modules():
            module.register_forward_hook(unchanged)
    x, upstream = torch.randn(2, 2, 4, 5, 6)
    y, gradients = value_and_gradients(geometric, x, upstream)
    expected, free_gradients = value_and_gradients(free, x, upstream)
    assert_close(y, expected, "float64")
    for name, gradient in free_gradients.items():
        gradient = gradient.sum(1) if is_rate(name) else gradient
        assert gradient.any(), name
        assert_close(gradients[name], gradient, "float64", name)


def unchanged(*_):
    return None


@pytest.mark.parametrize("kind", SCANNING.values(), ids=SCANNING)
def test_compiled(kind):
    mixer, (x, upstream) = kind(8, d_state=3, decay="geometric"), torch.randn(2, 2, 3, 4, 8)
    y, gradients = value_and_gradients(mixer, x, upstream)
    mixer.zero_grad()
    compiled = torch.compile(mixer, backend="aot_eager", fullgraph=True)
    actual, after = value_and_gradients(compiled, x, upstream)
    assert_close(actual, y, "compiled")
    for name, gradient in after.items():
        assert_close(gradient, gradients[name.removeprefix("_orig_mod.")], "compiled", name)


@pytest.mark.parametrize("kind", SCANNING.values(), ids=SCANNING)
def test_exported_with_any_size(kind):
    mixer = kind(8, d_state=3, decay="geometric").eval()
    sizes = {i: torch.export.Dim(name, min=1, max=64) for i, name in enumerate(("batch", "height", "width"))}
    program = torch.export.export(mixer, (torch.randn(2, 3, 4, 8),), dynamic_shapes=(sizes,)).module()
    for size in ((1, 5, 2), (3, 1, 7)):
        x = torch.randn(*size, 8)
        assert_close(program(x), mixer(x), "compiled", str(size))


@pytest.mark.slow
@pytest.mark.parametrize("name", SCANNING)
def test_exported_to_onnx(name, tmp_path):
    from onnxruntime import InferenceSession

    one_corner = {} if name == "raster" else dict(directions="one_corner")
    mixer, x = SCANNING[name](8, d_state=3, decay="geometric", **one_corner).eval(), torch.randn(1, 2, 3, 8)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the exporter, about itself
        torch.onnx.export(mixer, (x,), f=tmp_path / "mixer.onnx", dynamo=True, verbose=False)
    session = InferenceSession(tmp_path / "mixer.onnx", providers=["CPUExecutionProvider"])
    (argument,) = session.get_inputs()
    (y,) = session.run(None, {argument.name: x.numpy()})
    assert_close(torch.from_numpy(y), mixer(x), "compiled")


@pytest.mark.parametrize("kind", SCANNING.values(), ids=SCANNING)
def test_an_unknown_decay(kind):
    with pytest.raises(ValueError, match=rf"{kind.__name__}: decay is 'fast', expected one of 'free', 'geom"):
        kind(8, decay="fast")


@pytest.mark.parametrize("name", ["light", "attention"])
def test_the_others_have_none(name):
    with pytest.raises(TypeError, match="decay"):
        MIXERS[name](8, decay="geometric")


@pytest.mark.parametrize("kind", SCANNING.values(), ids=SCANNING)
def test_repr_shows_geometric_rates(kind):
    assert "geometric" in repr(kind(8, decay="geometric"))
