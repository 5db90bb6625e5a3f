"""Free decay rates as geometric ones."""

import math

import pytest
import timm
import torch
from timm.models import save_for_hf

from tests.helpers import assert_close
from v2m.layers import Decay
from v2m.models import V2M
from v2m.models.convert import infer_config
from v2m.models.decay import ALL, RateErrors, fit_rates, make_geometric

SMALL = {
    "v2m_nano": dict(depth=2, embed_dim=16, d_state=4, num_classes=3),
    "v2m_hierarchical_small": dict(depths=(1,) * 4, embed_dim=(8,) * 4, d_state=3, num_classes=3),
}
every_family = pytest.mark.parametrize("name", SMALL)


@every_family
@pytest.mark.parametrize("mixer", ["v2m", "conv", "exact", "raster"])
def test_a_new_model_becomes_its_twin(name, mixer):
    model = timm.create_model(name, mixer=mixer, **SMALL[name]).eval()
    state, errors = make_geometric(model.state_dict())
    other = timm.create_model(name, mixer=mixer, decay="geometric", **SMALL[name]).eval()
    other.load_state_dict(state)
    x = torch.randn(2, 3, 32, 32)
    assert_close(other(x), model(x), "float32")
    blocks = [name for name, _ in model.named_modules() if name.endswith(".mixer")]
    assert [e.mixer for e in errors] == [*blocks, ALL]
    assert all((e.median, e.largest, e.one_cell, e.any_distance) == (0, 0, 0, 0) for e in errors)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_rates_of_new_models_of_any_type_are_met_exactly(dtype):
    rates = fit_rates(V2M(embed_dim=16, depth=1, dtype=dtype).blocks[0].mixer.A_log)
    assert rates.dtype == dtype
    assert torch.equal(rates, torch.zeros_like(rates))


def test_the_fit_is_the_nearest_in_logarithms():
    A_log = torch.randn(5, 6, dtype=torch.float64)
    numbers = torch.arange(1.0, 7.0, dtype=torch.float64).log()

    def error(rates):
        return (rates.unsqueeze(1) + numbers - A_log).square().sum(1)

    best = fit_rates(A_log)
    assert best.shape == (5,)
    for shift in (-1e-3, 1e-3):
        assert (error(best + shift) > error(best)).all()


def test_errors_by_hand():
    """Rates 2 and 6 where one rate gives 1 a and 2 a: a is the square root of 6."""
    a, step = math.sqrt(6), 0.05
    place = "blocks.0.mixer."
    state = {
        f"{place}A_log": torch.tensor([[2.0, 6.0]], dtype=torch.float64).log(),
        f"{place}dt_proj.bias": torch.tensor([step], dtype=torch.float64).expm1().log(),
        f"{place}D": torch.ones(1),
    }
    geometric, (errors, total) = make_geometric(state)
    assert geometric[f"{place}A_log"].exp().item() == pytest.approx(a)
    assert geometric[f"{place}D"] is state[f"{place}D"]
    relative = sorted([a / 2 - 1, 1 - 2 * a / 6])
    cell = max(
        abs(math.exp(-step * a) - math.exp(-2 * step)), abs(math.exp(-step * 2 * a) - math.exp(-6 * step))
    )
    times = torch.linspace(0, 20, 200001, dtype=torch.float64)
    distance = ((-times * a).exp() - (-times * 2).exp()).abs().max().item()
    expected = RateErrors("blocks.0.mixer", relative[0], relative[1], cell, distance)
    for name in ("median", "largest", "one_cell", "any_distance"):
        assert getattr(errors, name) == pytest.approx(getattr(expected, name), rel=1e-6), name
        assert getattr(total, name) == getattr(errors, name)
    assert (errors.mixer, total.mixer) == ("blocks.0.mixer", ALL)
    assert distance <= math.log(a / 2) / math.e


def test_the_passes_within_windows_count_to_their_mixer():
    state, errors = make_geometric(V2M(embed_dim=8, depth=2, window=3).state_dict())
    assert state["blocks.1.mixer.local.A_2_log"].shape == (16,)
    assert [e.mixer for e in errors] == ["blocks.0.mixer", "blocks.1.mixer", ALL]


def test_models_without_scans_have_no_errors():
    state = V2M(embed_dim=8, depth=1, attention_blocks=1).state_dict()
    assert make_geometric(state) == (state, [])


@every_family
@pytest.mark.parametrize(("saved", "wanted"), [("free", "geometric"), ("geometric", "free")])
def test_weights_of_the_other_kind_are_refused(tmp_path, name, saved, wanted):
    save_for_hf(timm.create_model(name, decay=saved, **SMALL[name]), tmp_path, safe_serialization=True)
    folder = f"local-dir:{tmp_path}"
    assert timm.create_model(folder, pretrained=True).config.decay is Decay(saved)
    message = f"decay is '{wanted}', but these weights are of '{saved}'"
    with pytest.raises(ValueError, match=message) as error:
        timm.create_model(folder, pretrained=True, decay=wanted)
    assert ("v2m convert --decay geometric" in str(error.value)) == (wanted == "geometric")


def test_the_state_of_geometric_weights_is_read_off_the_projections():
    model = V2M(img_size=32, embed_dim=20, depth=1, d_state=3, directions="released", decay="geometric")
    assert infer_config(model.state_dict()) == model.config
