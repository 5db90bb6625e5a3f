"""What is put around layers or in their place works as in a timm ViT, which is the control of every test."""

import copy
import warnings

import pytest
import timm
import torch
from torch import nn
from torch.nn.utils import parametrizations, prune

import v2m
from tests.helpers import assert_close

# Wide enough for a rank of 2: torchao cannot quantise a layer of one input.
PLAIN, HIERARCHICAL = dict(depth=2, embed_dim=32), dict(depths=(1, 2, 1, 1), embed_dim=(32, 32, 32, 32))
MODELS = {
    "vit": ("test_vit", {}),
    "corners": ("v2m_nano", PLAIN),
    "single gate": ("v2m_nano", PLAIN | dict(single_gate=True, class_token="edge")),
    "windows": ("v2m_nano", PLAIN | dict(window=3)),
    "geometric": ("v2m_nano", PLAIN | dict(decay="geometric", window=3)),
    "separable with a 3x3 convolution": ("v2m_nano", PLAIN | dict(mixer="conv")),
    "exact": ("v2m_nano", PLAIN | dict(mixer="exact")),
    "raster": ("v2m_nano", PLAIN | dict(mixer="raster")),
    "light": ("v2m_nano", PLAIN | dict(mixer="light")),
    "attention": ("v2m_nano", PLAIN | dict(attention_blocks=1)),
    "convolutional stem": ("v2m_micro", PLAIN),
    "hierarchical": ("v2m_hierarchical_small", HIERARCHICAL),
    "hierarchical exact": ("v2m_hierarchical_small", HIERARCHICAL | dict(mixer="exact")),
    "hierarchical raster": ("v2m_hierarchical_small", HIERARCHICAL | dict(mixer="raster")),
    "hierarchical light": ("v2m_lite_nano", HIERARCHICAL),
}
IMAGES = torch.randn(2, 3, 32, 48, generator=torch.Generator().manual_seed(0))


@pytest.fixture(params=MODELS)
def model(request):
    name, settings = MODELS[request.param]
    size = dict(img_size=(32, 48), dynamic_img_size=True) if name == "test_vit" else dict(img_size=(32, 48))
    return timm.create_model(name, num_classes=5, **size, **settings).eval()


def results(model):
    """Output, and the gradient of every parameter."""
    model.zero_grad()
    y = model(IMAGES)
    y.square().sum().backward()
    return {"y": y} | {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def assert_same(actual, expected):
    for name, value in actual.items():
        assert_close(value, expected[name], "float32 gradient", name)


def linear_layers(model):
    return {name: layer for name, layer in model.named_modules() if isinstance(layer, nn.Linear | nn.Conv1d)}


def test_every_module_is_called(model):
    """So hooks, what compiles a stage, and what moves weights to where they are needed, get their turn."""
    expected, called = results(model), set()
    for name, module in model.named_modules():
        module.register_forward_hook(lambda *_, name=name: called.add(name))
    assert_same(results(model), expected)
    unused = {name for name, module in model.named_modules() if isinstance(module, nn.ModuleList)}
    unused |= {name for name, _ in model.named_modules() if name.endswith("attn_drop")}  # of timm's attention
    assert {name for name, _ in model.named_modules()} - called - unused == set()


def test_one_hooked_layer_changes_nothing(model):
    expected = results(model)
    for name, layer in linear_layers(model).items():
        calls = []
        handle = layer.register_forward_hook(lambda *_, calls=calls: calls.append(1))
        assert_same(results(model), expected)
        assert calls, name
        handle.remove()


def test_hooks_change_what_they_change(model):
    expected = model(IMAGES)
    for name, layer in linear_layers(model).items():
        handle = layer.register_forward_hook(lambda module, args, y: 2 * y + 1)
        assert not torch.equal(model(IMAGES), expected), name
        handle.remove()
    assert torch.equal(model(IMAGES), expected)


def with_other_bias(layer):
    """A layer of the same weights, with a bias where there was none, and without where there was one."""
    if isinstance(layer, nn.Conv1d):
        sizes = (layer.in_channels, layer.out_channels, layer.kernel_size, 1, 0, 1, layer.groups)
    else:
        sizes = (layer.in_features, layer.out_features)
    changed = type(layer)(*sizes, bias=layer.bias is None)
    changed.weight = layer.weight
    return changed


def with_dilation(layer):
    """A convolution of two taps that reaches as far as that of four."""
    return nn.Conv1d(layer.in_channels, layer.out_channels, 2, dilation=3, groups=layer.groups)


@pytest.mark.parametrize("change", [with_other_bias, with_dilation])
def test_layers_in_place_of_others_do_what_they_do(model, change):
    for name, layer in list(model.named_modules()):
        if type(layer) is nn.Conv1d or (type(layer) is nn.Linear and change is with_other_bias):
            model.set_submodule(name, change(layer))
    actual = results(model)
    for module in model.modules():
        module.register_forward_hook(lambda *_: None)
    assert_same(actual, results(model))


def test_pruned_layers(model):
    for layer in linear_layers(model).values():
        prune.l1_unstructured(layer, "weight", 0.5)
    pruned = results(model)
    for layer in linear_layers(model).values():
        prune.remove(layer, "weight")
    assert_same({"y": pruned["y"]}, results(model))


def test_pruned_decay_rates():
    model = v2m.create_model("v2m_hierarchical_small", **HIERARCHICAL).eval()
    for module in model.modules():
        if "A_log" in module._parameters:
            nn.init.ones_(module.A_log)
    before = model(IMAGES)
    for module in model.modules():
        if "A_log" in module._parameters:
            prune.random_unstructured(module, "A_log", 0.9)
    pruned = model(IMAGES)
    assert not torch.equal(pruned, before)
    for module in model.modules():
        if hasattr(module, "A_log_mask"):
            prune.remove(module, "A_log")
    assert torch.equal(model(IMAGES), pruned)


def test_weight_norm(model):
    expected = results(model)
    for layer in linear_layers(model).values():
        parametrizations.weight_norm(layer)
    actual = results(model)
    assert_same({"y": actual["y"]}, expected)
    for name in linear_layers(model):
        assert actual[f"{name}.parametrizations.weight.original0"].any(), name


@pytest.mark.filterwarnings("ignore:.*deprecated")
def test_dynamic_quantisation(model):
    quantized = torch.ao.quantization.quantize_dynamic(model, {nn.Linear}, dtype=torch.qint8)
    names = [name for name, m in quantized.named_modules() if "quantized" in type(m).__module__]
    assert set(names) >= {name for name, m in model.named_modules() if type(m) is nn.Linear}
    assert_roughly(quantized(IMAGES), model(IMAGES))


def test_torchao(model):
    pytest.importorskip("torchao")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torchao about its extensions
        from torchao.quantization import Int8WeightOnlyConfig, quantize_

        quantized = copy.deepcopy(model)
        quantize_(quantized, Int8WeightOnlyConfig())
        assert any(type(p).__module__.startswith("torchao") for p in quantized.parameters())
        assert_roughly(quantized(IMAGES), model(IMAGES))


def assert_roughly(actual, expected):
    """As eight bits allow."""
    error = (actual - expected).norm() / expected.norm()
    assert 0 < error < 0.1


def test_offloaded_to_the_cpu(model):
    from accelerate import cpu_offload

    expected = model(IMAGES)
    cpu_offload(model, execution_device=torch.device("cpu"))
    assert all(parameter.is_meta for parameter in model.parameters())
    assert_close(model(IMAGES), expected, "float32")


@pytest.mark.filterwarnings("ignore:The following device_map keys")  # about parameters of the model itself
def test_loaded_in_parts(tmp_path):
    """Made without memory, then loaded block by block, some of it left on the disk."""
    accelerate = pytest.importorskip("accelerate")
    settings = dict(num_classes=5, img_size=(32, 48), **PLAIN)
    model = timm.create_model("v2m_nano", **settings).eval()
    expected = model(IMAGES)
    torch.save(model.state_dict(), tmp_path / "weights.pt")
    with accelerate.init_empty_weights(include_buffers=True):
        empty = timm.create_model("v2m_nano", **settings).eval()
    places = dict.fromkeys((name for name, _ in empty.named_children()), "cpu")
    del places["blocks"]
    places |= {"pos_embed": "cpu", "blocks.0": "cpu", "blocks.1": "disk"}
    loaded = accelerate.load_checkpoint_and_dispatch(
        empty, str(tmp_path / "weights.pt"), device_map=places, offload_folder=str(tmp_path / "offload")
    )
    assert loaded.blocks[1].mixer.x_proj.weight.is_meta
    assert_close(loaded(IMAGES), expected, "float32")


def test_every_adapter_is_trained(model):
    peft = pytest.importorskip("peft")
    before = model(IMAGES)
    config = peft.LoraConfig(target_modules="all-linear", init_lora_weights=False)
    adapted = peft.get_peft_model(model, config)
    adapted.eval()
    y = adapted(IMAGES)
    assert not torch.allclose(y, before)
    y.square().sum().backward()
    adapters = {name: p for name, p in adapted.named_parameters() if "lora_" in name}
    linear = [name for name, m in adapted.named_modules() if isinstance(m, peft.tuners.lora.Linear)]
    assert len(adapters) == 2 * len(linear) > 0
    for name, parameter in adapters.items():
        assert parameter.grad is not None, name
        assert parameter.grad.any(), name
    assert_close(adapted.merge_and_unload()(IMAGES), y, "float32 gradient")


@pytest.mark.parametrize(
    "settings", [dict(use_dora=True), dict(modules_to_save=["head"]), dict(bias="all")], ids=str
)
def test_adapters_are_saved_and_loaded(settings, tmp_path):
    peft = pytest.importorskip("peft")
    base = timm.create_model("v2m_nano", num_classes=5, img_size=(32, 48), **PLAIN).eval()
    config = peft.LoraConfig(target_modules="all-linear", init_lora_weights=False, **settings)
    adapted = peft.get_peft_model(copy.deepcopy(base), config).eval()
    with torch.no_grad():
        for parameter in adapted.parameters():
            parameter.add_(0.01 if parameter.requires_grad else 0)
    y = adapted(IMAGES)
    adapted.save_pretrained(tmp_path)
    assert_close(peft.PeftModel.from_pretrained(copy.deepcopy(base), tmp_path).eval()(IMAGES), y, "float32")
    assert_close(adapted.merge_and_unload()(IMAGES), y, "float32 gradient")
    assert not torch.allclose(base(IMAGES), y)


def test_copies_and_averages_of_hooked_and_normed_layers(model):
    for name, layer in linear_layers(model).items():
        if name.endswith("proj"):
            parametrizations.weight_norm(layer)
            layer.register_forward_hook(Unchanged())
    y = model(IMAGES)
    average = torch.optim.swa_utils.AveragedModel(model)
    average.update_parameters(model)
    ema = timm.utils.ModelEmaV3(model, decay=0.5)
    ema.update(model)
    for copied in (copy.deepcopy(model), average, ema):
        assert_close(copied(IMAGES), y, "float32")


class Unchanged:
    """A hook that can be copied."""

    def __call__(self, *_):
        return None


@pytest.fixture
def one_process():
    """A process group of this process alone."""
    import torch.distributed as dist

    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


def layers_of(model):
    return [module for module in model.modules() if not [*module.children()] and [*module.parameters()]]


def parts_of(model):
    return [*getattr(model, "stages", getattr(model, "blocks", ()))]


@pytest.mark.filterwarnings("ignore:FSDP2-wrapped module")  # about changes in place, which nobody makes
@pytest.mark.parametrize("pieces", [layers_of, parts_of])
def test_sharded_piece_by_piece(model, pieces, one_process):
    from torch.distributed.fsdp import fully_shard
    from torch.distributed.tensor import DTensor

    expected = results(model)
    mesh = torch.distributed.init_device_mesh("cpu", (1,))
    for piece in pieces(model):
        fully_shard(piece, mesh=mesh)
    fully_shard(model, mesh=mesh)
    actual = results(model)
    assert all(isinstance(parameter, DTensor) for parameter in model.parameters())
    whole = {name: x.full_tensor() if isinstance(x, DTensor) else x for name, x in actual.items()}
    assert_same(whole, expected)
