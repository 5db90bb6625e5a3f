import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

import v2m
from v2m.models import MODELS, V2M
from v2m.models.flops import Flops, count_flops


def count(name, size=224, **arguments):
    with torch.device("meta"):
        model = v2m.create_model(name, **arguments)
    return count_flops(model, (3, size, size))


@pytest.mark.parametrize(("directions", "passes"), [("corners", 8), ("corners_rows_first", 6)])
def test_a_small_model_by_hand(directions, passes):
    config = dict(img_size=(8, 12), patch_size=4, embed_dim=8, depth=2, d_state=3, num_classes=5)
    model = V2M(**config, directions=directions, device="meta")
    tokens, inner, rank, states, taps = 2 * 3, 16, 1, 3, 4
    patches = tokens * 8 * 3 * 4 * 4
    in_and_out = tokens * (8 * 2 * inner + inner * 8)
    one_pass = tokens * inner * (taps + (rank + states) + rank)
    head = 8 * 5
    assert count_flops(model, (3, 8, 12)) == Flops(
        layers=patches + 2 * (in_and_out + passes * one_pass) + head,
        scans=2 * passes * 9 * tokens * inner * states,
    )


@pytest.mark.parametrize(
    ("name", "billions"),
    [("resnet18", 1.814), ("deit_tiny_patch16_224", 1.254), ("swin_tiny_patch4_window7_224", 4.491)],
)
def test_models_of_timm(name, billions):
    flops = count(name)
    assert flops.total / 1e9 == pytest.approx(billions, abs=1e-3)
    assert flops.scans == 0


def test_the_papers_models():
    tiny, small = count("v2m_tiny_patch16_224"), count("v2m_small_patch16_224")
    assert tiny.layers / 1e9 == pytest.approx(1.705, abs=1e-3)
    assert tiny.scans == 9 * 24 * 8 * 14 * 14 * 384 * 16
    assert small.scans == 2 * tiny.scans
    assert tiny.total == tiny.layers + tiny.scans


@pytest.mark.parametrize(("sweeps", "levels"), [(None, 1), (0, 1), (2, 3)])
def test_a_scan_in_two_dimensions(sweeps, levels):
    class Scan(nn.Module):
        def forward(self, image):
            u = image.movedim(1, -1)  # [1, 4, 6, 5]
            A, of_states = u.new_empty(5, 3), u.new_empty(1, 4, 6, 3)
            return v2m.selective_scan_2d(u, u, u, A, A, *(of_states,) * 6, sweeps=sweeps)

    assert count_flops(Scan(), (5, 4, 6)) == Flops(layers=0, scans=9 * 2 * levels * (4 * 6) * 5 * 3)


@pytest.mark.parametrize(
    ("name", "papers", "share"),
    [("v2m_hierarchical_small", 5.4, 0.06), ("v2m_hierarchical_base", 9.6, 0.03)],
)
def test_hierarchical_models_are_near_the_paper(name, papers, share):
    flops = count(name)
    assert flops.total / 1e9 == pytest.approx(papers, rel=share)
    assert 0 < flops.scans < 0.04 * flops.total


def test_windows_cost_nothing():
    assert count("v2m_tiny_local") == count("v2m_tiny_patch16_224")


def test_light_models_have_no_scans():
    light, deit = count("v2m_lite_small"), count("deit_tiny_patch16_224")
    assert light.scans == 0
    assert light.total < deit.total


def test_linear_in_the_number_of_tokens():
    small, large = (count("v2m_nano", size, num_classes=0) for size in (32, 64))
    assert large == Flops(4 * small.layers, 4 * small.scans)


SMALL = dict(img_size=32, num_classes=3, d_state=2)
STAGES = SMALL | dict(embed_dim=[8, 8, 16, 16], depths=[1, 1, 2, 1])
PLAIN = SMALL | dict(embed_dim=16, depth=2, patch_size=8)


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        (name, STAGES if "lite" in name or "hierarchical" in name else PLAIN)
        for name in MODELS
        if name != "v2m_micro"
    ]
    + [("v2m_micro", dict(img_size=32, embed_dim=16, depth=1))]
    + [("v2m_nano", PLAIN | dict(mixer="exact", sweeps=sweeps)) for sweeps in (None, 2)],
)
def test_counters_of_pytorch_see_the_same(name, arguments):
    model = v2m.create_model(name, **arguments).eval()
    image = torch.randn(1, 3, 32, 32, requires_grad=True)
    ours = count(name, 32, **arguments)
    with FlopCounterMode(display=False) as forward:
        output = model(image)
    assert forward.get_total_flops() == 2 * ours.layers + ours.scans
    with FlopCounterMode(display=False) as backward:
        output.sum().backward()
    back = {str(operator): found for operator, found in backward.get_flop_counts()["Global"].items()}
    own = {str(op): flops for op, flops in forward.get_flop_counts()["Global"].items() if "v2m." in str(op)}
    assert bool(own) == (ours.scans > 0)
    assert {f"{op}_backward": 2 * flops for op, flops in own.items()}.items() <= back.items()


def test_counters_of_pytorch_see_a_scan_on_its_own():
    u, A, of_states = torch.randn(2, 4, 6, 5), torch.zeros(5, 3), torch.randn(2, 4, 6, 3)
    with FlopCounterMode(display=False) as counter:
        v2m.selective_scan(u.requires_grad_(), u, A, of_states, of_states, axis="row").sum().backward()
    assert counter.get_flop_counts()["Global"] == {
        torch.ops.v2m.selective_scan: 9 * u.numel() * 3,
        torch.ops.v2m.selective_scan_backward: 2 * 9 * u.numel() * 3,
    }
