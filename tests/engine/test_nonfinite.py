import math
from contextlib import nullcontext

import pytest
import timm
import torch
import torch.nn.functional as F
from torch import nn

from v2m.engine.nonfinite import find_nonfinite

INF, NAN = math.inf, math.nan


class NanBackward(torch.autograd.Function):
    """The same forwards; backwards not a number."""

    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, grad):
        return torch.full_like(grad, NAN)


def build(**arguments):
    torch.manual_seed(0)
    model = timm.create_model("v2m_nano", img_size=8, patch_size=2, depth=4, num_classes=3, **arguments)
    return model.train()


@pytest.fixture(params=["plain", "checkpointed"])
def model(request):
    model = build()
    model.set_grad_checkpointing(request.param == "checkpointed")
    return model


def step(images=None, autocast=None):
    """A step of training as ``find_nonfinite`` takes it."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(4, 3, 8, 8, generator=generator) if images is None else images

    def run(model):
        torch.manual_seed(1)
        with torch.autocast("cpu", autocast) if autocast else nullcontext():
            logits = model(images)
        return F.cross_entropy(logits.float(), torch.tensor([0, 1, 2, 0]))

    return run


def replace_forward(module, change):
    """Let a module give ``change`` of its output; it stays the same type."""
    forward = module.forward
    module.forward = lambda *args: change(forward(*args))


def test_a_sound_step_has_nothing_to_find(model):
    assert find_nonfinite(step(), model) == "nowhere when repeated"


@pytest.mark.parametrize(
    "name", ["pos_embed", "blocks.2.mixer.in_proj.weight", "blocks.1.mixer.A_log", "head.bias"]
)
@pytest.mark.parametrize("value", [INF, -INF, NAN])
def test_a_parameter(name, value):
    model = build()
    with torch.no_grad():
        dict(model.named_parameters())[name].view(-1)[-1] = value
        model.head.weight[0, 0] = value if name != "head.bias" else 0
    assert find_nonfinite(step(), model) == f"the parameter {name}"


def test_a_buffer_may_hold_infinities_but_nan():
    model = build()
    model.blocks[1].register_buffer("mask", torch.tensor([0.0, -INF]))
    assert find_nonfinite(step(), model) == "nowhere when repeated"
    model.blocks[1].mask[0] = NAN
    assert find_nonfinite(step(), model) == "the buffer blocks.1.mask"


@pytest.mark.parametrize("value", [INF, NAN])
def test_the_images(model, value):
    images = torch.randn(4, 3, 8, 8)
    images[2, 1, 3, 3] = value
    assert find_nonfinite(step(images), model) == "the input images"


def test_the_output_of_the_innermost_module_that_overflows(model):
    with torch.no_grad():
        model.blocks[2].mixer.in_proj.weight.fill_(3e38)
    assert find_nonfinite(step(), model) == "the output of blocks.2.mixer.in_proj (Linear)"


def test_the_output_of_a_module_whose_own_code_overflows(model):
    with torch.no_grad():
        model.blocks[2].mixer.D_2.fill_(3e38)  # a parameter of the scan, between the two projections
    assert find_nonfinite(step(), model) == "the output of blocks.2.mixer (V2MMixer)"


@pytest.mark.parametrize(
    ("dtype", "expected"),
    [
        (torch.float16, "the output of blocks.1.mixer.out_proj (Linear)"),
        (torch.bfloat16, "nowhere when repeated"),
    ],
)
def test_an_overflow_of_a_low_precision(dtype, expected):
    model = build()
    with torch.no_grad():
        model.blocks[1].mixer.out_proj.weight.mul_(1e6)
        model.blocks[1].mixer.D_2.mul_(1e4)
    assert find_nonfinite(step(autocast=dtype), model) == expected
    assert find_nonfinite(step(), model) == "nowhere when repeated"


def test_the_loss():
    def run(model):
        return step()(model) + torch.log(torch.zeros(()))

    assert find_nonfinite(run, build()) == "the loss"


def test_an_infinity_on_the_way_that_only_spoils_the_gradient_is_named():
    model = build()
    replace_forward(model.blocks[1].mixer.in_proj, lambda x: torch.exp(x + 1e3))
    replace_forward(model.blocks[1].mixer, lambda x: 1 / torch.exp(x.square() + 1e3))
    found = find_nonfinite(step(), model)
    assert found == "the output of blocks.1.mixer.in_proj (Linear)"


def test_the_backward_pass_of_a_module_without_parameters(model):
    replace_forward(model.blocks[2].drop_path, NanBackward.apply)
    assert find_nonfinite(step(), model) == "the backward pass of blocks.2.drop_path (Identity)"


def test_the_gradient_of_the_parameter_of_a_module(model):
    replace_forward(model.blocks[2].mixer.out_proj, NanBackward.apply)
    assert find_nonfinite(step(), model) == "the gradient of blocks.2.mixer.out_proj.weight"


def test_the_backward_pass_of_a_modules_own_code(model):
    replace_forward(model.blocks[2].mixer, NanBackward.apply)
    assert find_nonfinite(step(), model) == "the backward pass of blocks.2.mixer (V2MMixer)"


def test_the_slope_of_a_root_at_zero(model):
    replace_forward(model.blocks[3].mixer, lambda x: x + torch.sqrt(x - x))
    assert find_nonfinite(step(), model) == "the backward pass of blocks.3.mixer (V2MMixer)"


def test_the_gradient_of_a_parameter_alone():
    model = build()
    model.pos_embed.register_hook(lambda grad: grad / 0)
    assert find_nonfinite(step(), model) == "the gradient of pos_embed"


def test_the_gradient_of_the_loss():
    def run(model):
        loss = step()(model)
        return loss + 0 * torch.sqrt(loss - loss)

    assert find_nonfinite(run, build()) == "the gradient of the loss"


class Parts(nn.Module):
    """Tuples, lists and dictionaries between modules, arguments by name, and changes in place."""

    def __init__(self):
        super().__init__()
        self.split, self.join = Split(), Join()

    def forward(self, x):
        parts, named = self.split(x)
        parts[1].add_(1.0)
        return self.join(parts, more=named)


class Split(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b, self.act = nn.Linear(4, 4), nn.Linear(4, 4), nn.ReLU(inplace=True)

    def forward(self, x):
        return (self.act(self.a(x)), self.b(x)), dict(x=[self.b(x), None, 1])


class Join(nn.Module):
    def __init__(self):
        super().__init__()
        self.factor = 1.0

    def forward(self, parts, more):
        return sum(parts) + self.factor * torch.sqrt(more["x"][0].square())


@pytest.mark.parametrize(
    ("x", "factor", "expected"),
    [
        (1.0, 1.0, "nowhere when repeated"),
        (1.0, INF, "the output of join (Join)"),
        (0.0, 1.0, "the backward pass of join (Join)"),
    ],
)
def test_tuples_lists_dictionaries_and_changes_in_place(x, factor, expected):
    model = Parts()
    nn.init.zeros_(model.split.b.bias)
    model.join.factor = factor
    assert find_nonfinite(lambda model: model(torch.full((2, 4), x)).sum(), model) == expected


def test_everything_is_left_as_it_was(model):
    images = torch.randn(4, 3, 8, 8)
    model.head_drop = Tracked()
    expected = step(images)(model)
    gradients = torch.autograd.grad(expected, list(model.parameters()))
    model.head.bias.grad = torch.ones(3)
    before = model.head_drop.count.clone(), torch.get_rng_state(), model.head.bias.grad
    assert find_nonfinite(step(images), model) == "nowhere when repeated"
    assert model.head_drop.count == before[0]
    assert torch.equal(torch.get_rng_state(), before[1])
    assert model.head.bias.grad is before[2]
    assert torch.equal(before[2], torch.ones(3))
    assert all(p.grad is None for name, p in model.named_parameters() if name != "head.bias")
    for module in model.modules():
        assert not module._forward_hooks
        assert not module._forward_pre_hooks
    assert not any(p._backward_hooks for p in model.parameters())
    again = step(images)(model)
    assert torch.equal(again, expected)
    for first, second in zip(gradients, torch.autograd.grad(again, list(model.parameters())), strict=True):
        assert torch.equal(first, second)


class Tracked(nn.Module):
    """Counts its calls, as batch norm does."""

    def __init__(self):
        super().__init__()
        self.register_buffer("count", torch.zeros(()))

    def forward(self, x):
        self.count += 1
        return x


def test_hooks_are_taken_off_when_the_step_fails():
    model = build()
    with pytest.raises(RuntimeError, match="size"):
        find_nonfinite(lambda model: model(torch.zeros(1, 3, 8, 8)) + torch.zeros(7), model)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def test_dropout_and_stochastic_depth_repeat_when_the_step_seeds():
    model = build(drop_rate=0.5, drop_path_rate=0.5)
    seen = []

    def run(model):
        seen.append(step()(model))
        return seen[-1]

    find_nonfinite(run, model)
    assert torch.equal(seen[0], step()(model))


@pytest.mark.parametrize("whole", [True, False])
def test_a_compiled_model_is_looked_at_as_it_is(whole):
    model = build()
    replace_forward(model.blocks[2].mixer.out_proj, NanBackward.apply)
    if whole:
        compiled = torch.compile(model, backend="eager")
    else:
        compiled = model
        model.blocks[2] = torch.compile(model.blocks[2], backend="eager")
        model.blocks[3].compile(backend="eager")
    assert find_nonfinite(step(), compiled) == "the gradient of blocks.2.mixer.out_proj.weight"


def test_one_process_of_several_can_look_by_itself(tmp_path):
    torch.distributed.init_process_group("gloo", f"file://{tmp_path}/store", rank=0, world_size=1)
    try:
        model = nn.parallel.DistributedDataParallel(build())
        step()(model)  # gradients are expected now, and were not made
        replace_forward(model.module.blocks[1].mixer.in_proj, NanBackward.apply)
        calls = []
        model.register_comm_hook(None, lambda state, bucket: calls.append(bucket))
        assert find_nonfinite(step(), model) == "the gradient of blocks.1.mixer.in_proj.weight"
        assert calls == []
    finally:
        torch.distributed.destroy_process_group()
