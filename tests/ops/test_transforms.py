"""Transforms of ``torch.func``, forward-mode derivatives and higher derivatives of every operator.

What is right is what PyTorch's own reverse mode makes of the oracle in float64.
"""

from functools import partial

import pytest
import torch
from torch.autograd import forward_ad
from torch.func import functional_call, grad, jacfwd, jacrev, jvp, linearize, vjp, vmap

import v2m
from tests.helpers import assert_close
from tests.ops.inputs import FAST, pass_arguments, scan_2d_arguments, scan_arguments
from v2m.ops import directional_pass, selective_scan, selective_scan_2d, use_implementation

# PyTorch scripts its own formulas for forward-mode derivatives when it first needs them.
pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit.script. is")

OPERATORS = {
    "scan": (selective_scan, scan_arguments, {}),
    "scan by columns": (selective_scan, scan_arguments, dict(axis="col", reverse=True, delta_softplus=True)),
    "pass": (directional_pass, pass_arguments, dict(selects="B")),
    "pass by columns": (directional_pass, pass_arguments, dict(selects="C", axis="col", reverse=True)),
    "geometric pass": (directional_pass, partial(pass_arguments, is_geometric=True), dict(selects="C")),
    "scan 2d": (selective_scan_2d, scan_2d_arguments, dict(reverse_col=True)),
    "sweeps": (selective_scan_2d, scan_2d_arguments, dict(sweeps=1)),
    "geometric scan 2d": (selective_scan_2d, partial(scan_2d_arguments, is_geometric=True), {}),
}


@pytest.fixture(params=OPERATORS)
def case(request):
    """A function of all tensors of an operator, and those tensors in float32."""
    operator, arguments, options = OPERATORS[request.param]
    tensors = arguments(3, 4, dtype=torch.float32)

    def function(*values, **more):
        return operator(**dict(zip(tensors, values, strict=True)), **options, **more)

    return function, tuple(tensors.values())


def directions(tensors):
    return tuple(torch.randn_like(x) for x in tensors)


def expected_jvp(function, tensors, tangents):
    """The derivative along the tangents, by differentiating the reverse mode's linear map."""
    leaves = [x.double().requires_grad_() for x in tensors]
    y = function(*leaves, implementation="reference")
    cotangent = torch.zeros_like(y, requires_grad=True)
    gradients = torch.autograd.grad(y, leaves, cotangent, create_graph=True)
    along = sum((g * t.double()).sum() for g, t in zip(gradients, tangents, strict=True))
    return torch.autograd.grad(along, cotangent)[0]


def test_jvp(case):
    function, tensors = case
    tangents = directions(tensors)
    y, actual = jvp(function, tensors, tangents)
    assert_close(y, function(*tensors), "float32")
    assert_close(actual, expected_jvp(function, tensors, tangents), "float32 gradient")


@pytest.mark.filterwarnings("ignore:Attempted to insert a get_attr Node")  # of PyTorch, about itself
def test_linearize(case):
    function, tensors = case
    tangents = directions(tensors)
    _, along = linearize(function, *tensors)
    assert_close(along(*tangents), expected_jvp(function, tensors, tangents), "float32 gradient")


def test_dual_numbers(case):
    function, tensors = case
    tangents = directions(tensors)
    with forward_ad.dual_level():
        duals = [forward_ad.make_dual(x, t) for x, t in zip(tensors, tangents, strict=True)]
        actual = forward_ad.unpack_dual(function(*duals)).tangent
    assert_close(actual, expected_jvp(function, tensors, tangents), "float32 gradient")


def test_jacobians(case):
    function, (x, *rest) = case
    forward, backward = (jacobian(lambda x: function(x, *rest)[0, 0, 0])(x) for jacobian in (jacfwd, jacrev))
    assert backward.abs().max() > 0
    assert_close(forward, backward, "float32 gradient")


def test_reverse_mode(case):
    function, tensors = case
    leaves = [x.detach().requires_grad_() for x in tensors]
    y = function(*leaves)
    cotangent = torch.randn_like(y)
    expected = torch.autograd.grad(y, leaves, cotangent)
    _, pull_back = vjp(function, *tensors)
    of_grad = grad(lambda values: (function(*values) * cotangent).sum())(tensors)
    for actual in (pull_back(cotangent), of_grad):
        for value, right in zip(actual, expected, strict=True):
            assert_close(value, right, "float32 gradient")


def test_per_sample_gradients(case):
    function, tensors = case
    batched = [x.ndim == 4 for x in tensors]  # the maps; parameters are shared
    maps = [x.unsqueeze(1) if b else x for x, b in zip(tensors, batched, strict=True)]

    def loss(*values):
        return function(*values).square().sum()

    every = tuple(range(len(maps)))
    actual = vmap(grad(loss, argnums=every), in_dims=tuple(0 if b else None for b in batched))(*maps)
    for sample in range(2):
        values = [x[sample] if b else x for x, b in zip(maps, batched, strict=True)]
        leaves = [x.detach().requires_grad_() for x in values]
        expected = torch.autograd.grad(loss(*leaves), leaves)
        for value, right in zip(actual, expected, strict=True):
            assert_close(value[sample], right, "float32 gradient")


def penalty(function, tensors, **options):
    """Gradients of a gradient penalty: what improved training of GANs and Hessian products take."""
    leaves = [x.detach().requires_grad_() for x in tensors]
    y = function(*leaves, **options)
    gradients = torch.autograd.grad(y.square().sum(), leaves, create_graph=True)
    return torch.autograd.grad(sum(g.square().sum() for g in gradients), leaves)


@pytest.mark.parametrize("implementation", [None, *FAST])
def test_gradients_of_gradients(case, implementation):
    function, tensors = case
    actual = penalty(function, tensors, implementation=implementation)
    expected = penalty(function, [x.double() for x in tensors], implementation="reference")
    for value, right in zip(actual, expected, strict=True):
        assert_close(value, right, "float32 gradient")


def test_gradients_of_gradients_where_one_argument_comes_from_another():
    u = scan_arguments(3, 4, dtype=torch.float32)["u"].requires_grad_()
    A = -torch.ones(3, 2)

    def penalty(u, **options):
        y = selective_scan(u, u.square(), A.to(u.dtype), B=u[..., :2], **options)
        (gradient,) = torch.autograd.grad(y.square().sum(), u, create_graph=True)
        return torch.autograd.grad(gradient.square().sum(), u)[0]

    expected = penalty(u.detach().double().requires_grad_(), implementation="reference")
    assert_close(penalty(u), expected, "float32 gradient")


@pytest.mark.parametrize("implementation", FAST)
def test_kernels_that_are_asked_for_are_not_transformed(case, implementation):
    function, tensors = case
    message = f"implementation {implementation!r} has no transforms of torch.func and no forward-mode"
    with use_implementation(implementation):
        with pytest.raises(ValueError, match=message):
            jvp(function, tensors, directions(tensors))
        with pytest.raises(ValueError, match=message):
            vmap(lambda x: function(x, *tensors[1:]))(tensors[0].unsqueeze(0))


def test_a_captured_graph_has_no_forward_derivatives(case):
    function, tensors = case

    class Module(torch.nn.Module):
        def forward(self, *values):
            return function(*values)

    captured = torch.export.export(Module(), tensors).module()
    assert_close(captured(*tensors), function(*tensors), "float32")
    with pytest.raises(RuntimeError, match="no forward-mode derivatives"):
        jvp(captured, tensors, directions(tensors))


def test_compiled_jvp(case):
    torch.compiler.reset()
    function, tensors = case
    tangents = directions(tensors)

    @torch.compile(fullgraph=True, backend="aot_eager")
    def compiled(tensors, tangents):
        return jvp(function, tensors, tangents)[1]

    assert_close(compiled(tensors, tangents), expected_jvp(function, tensors, tangents), "float32 gradient")


@pytest.mark.parametrize("settings", [{}, dict(mixer="exact"), dict(mixer="raster"), dict(window=2)])
def test_model(settings):
    """Ensembles, per-sample gradients and forward derivatives of a whole model."""
    model = v2m.create_model("v2m_nano", img_size=(12, 8), depth=1, num_classes=3, **settings).eval()
    images, parameters = torch.randn(2, 3, 12, 8), dict(model.named_parameters())

    def loss(parameters, image):
        return functional_call(model, parameters, (image.unsqueeze(0),)).square().sum()

    actual = vmap(grad(loss), in_dims=(None, 0))(parameters, images)
    tangents = {name: torch.randn_like(x) for name, x in parameters.items()}
    for index, image in enumerate(images):
        model.zero_grad()
        model(image.unsqueeze(0)).square().sum().backward()
        expected = {name: parameter.grad for name, parameter in model.named_parameters()}
        for name, value in actual.items():
            assert_close(value[index], expected[name], "float32 gradient", name)
        _, along = jvp(lambda p, image=image: loss(p, image), (parameters,), (tangents,))
        right = sum((expected[name].double() * tangents[name]).sum() for name in expected)
        assert_close(along, right, "float32 gradient")
