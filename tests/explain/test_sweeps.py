import pytest
import torch
from PIL import Image

from v2m.explain.sweeps import measure_refinement, use_sweeps
from v2m.models import V2M
from v2m.pictures import plot_refinement


@torch.no_grad()
def model(**settings):
    """A small model, with steps long enough for the states to matter."""
    small = dict(img_size=8, patch_size=2, embed_dim=8, depth=2, d_state=2, num_classes=4)
    model = V2M(**dict(mixer="exact") | small | settings).eval()
    for name, parameter in model.named_parameters():
        if name.endswith(("dt_proj.bias", "dt_proj_2.bias")):
            parameter.zero_()
    return model


def images(batch=6):
    return torch.randn(batch, 3, 8, 8), torch.randint(0, 4, (batch,))


def test_errors_fall_to_rounding():
    exact, *rows = measure_refinement(model(), *images(), sweeps=range(8))
    assert (exact.sweeps, exact.error, exact.agreement) == (None, 0.0, 1.0)
    assert [row.sweeps for row in rows] == list(range(8))
    assert rows[0].error > 1e-4
    assert rows[-1].error < 1e-6
    assert rows[-1].agreement == 1.0
    assert rows[-1].top1 == exact.top1


def test_scores_are_those_of_the_targets():
    net, (x, _) = model(), images()
    best = net(x).argmax(-1)
    (right,) = measure_refinement(net, x, best, sweeps=[])
    (wrong,) = measure_refinement(net, x, (best + 1) % 4, sweeps=[])
    assert (right.top1, wrong.top1) == (1.0, 0.0)


def test_a_model_trained_with_sweeps_is_compared_with_its_exact_recurrence():
    net, (x, y) = model(sweeps=1), images()
    exact, one = measure_refinement(net, x, y, sweeps=[1])
    assert one.error > 0
    assert exact.error == 0
    assert {block.mixer.scans[0].sweeps for block in net.blocks} == {1}


def test_sweeps_are_put_back_after_an_error():
    net = model()
    with pytest.raises(ValueError, match="expected images"), use_sweeps(net, 3):
        net(torch.zeros(1))
    assert net.blocks[0].mixer.scans[0].sweeps is None


def test_other_models_are_refused():
    with pytest.raises(ValueError, match="no coupled scans, expected mixer 'exact'"):
        next(measure_refinement(model(mixer="conv"), *images(), sweeps=[0]))


def test_plot(tmp_path):
    plot_refinement(
        [0, 1, 2], [0.5, 1e-3, 0.0], [0.5, 0.75, 0.75], 0.75, tmp_path / "refinement.png", "a title"
    )
    with Image.open(tmp_path / "refinement.png") as picture:
        assert picture.size[0] > 400
