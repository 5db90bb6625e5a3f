import pytest
import torch
from torch import nn

import v2m
from v2m.models import V2M
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
