import pytest
import torch
from torch import nn

from v2m.layers import MIXERS, Mixer, TwoPasses

every_mixer = pytest.mark.parametrize("kind", MIXERS.values(), ids=MIXERS)
DECAYS = [(kind, {}) for kind in MIXERS.values()] + [
    (kind, dict(decay="geometric")) for kind in MIXERS.values() if "decay" in kind.settings()
]
every_decay = pytest.mark.parametrize(("kind", "settings"), DECAYS)


@every_decay
@pytest.mark.parametrize("grid", [(1, 1), (1, 7), (5, 3)])
def test_a_mixer_maps_any_grid_to_its_shape(kind, settings, grid):
    mixer, x = kind(16, **settings), torch.randn(2, *grid, 16)
    assert isinstance(mixer, Mixer)
    assert mixer(x).shape == x.shape
    assert mixer.dim == mixer.out_proj.out_features == 16
    with pytest.raises(ValueError, match=rf"^{kind.__name__}: input has shape "):
        mixer(torch.zeros(2, 3, 4, 15))


@every_mixer
def test_settings_are_what_the_constructor_takes(kind):
    defaults = kind.settings()
    assert "dim" not in defaults
    assert kind.settings_at(0).keys() <= defaults.keys()
    torch.manual_seed(0)
    plain = kind(16).state_dict()
    torch.manual_seed(0)
    given = kind(dim=16, **defaults).state_dict()
    assert all(torch.equal(value, given[name]) for name, value in plain.items())


@every_decay
def test_the_scans_parameters_are_undecayed(kind, settings):
    """All that is no weight of PyTorch's own layers, and no bias."""
    mixer = kind(16, **settings)
    layers = {
        id(p)
        for m in mixer.modules()
        if isinstance(m, nn.Linear | nn.modules.conv._ConvNd)
        for p in m.parameters()
    }
    own = {name.rpartition(".")[2] for name, p in mixer.named_parameters() if id(p) not in layers}
    assert set(kind.undecayed) == {name for name in own if not name.startswith("coupling")}


@every_decay
def test_a_mixer_is_reset_after_the_meta_device(kind, settings):
    with torch.device("meta"):
        mixer = kind(16, **settings)
    mixer = mixer.to_empty(device="cpu")
    with torch.no_grad():
        for parameter in mixer.parameters():
            parameter.fill_(torch.nan)
    for module in mixer.modules():
        if isinstance(module, nn.Linear | nn.modules.conv._ConvNd | nn.LayerNorm):
            module.reset_parameters()
    mixer.reset_scan_parameters()
    assert all(parameter.isfinite().all() for parameter in mixer.parameters())


def test_a_mixer_has_to_say_how_it_mixes():
    class Nothing(Mixer):
        def reset_scan_parameters(self):
            pass

    with pytest.raises(TypeError, match="abstract"):
        Nothing()
    assert not issubclass(TwoPasses, Mixer)
