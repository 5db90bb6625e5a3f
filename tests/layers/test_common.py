import pytest
import torch
from torch import nn

from v2m.layers.common import autocast_disabled


class Outside(nn.Linear):
    """A linear layer that no autocast reaches."""

    def forward(self, x):
        with autocast_disabled(x.device):
            return super().forward(x)


@pytest.mark.parametrize("device", ["cpu", "meta"])
@pytest.mark.parametrize("compiled", [False, True])
def test_operators_outside_autocast_keep_their_dtypes(device, compiled):
    layer = Outside(3, 2, device=device)
    if compiled:
        layer.compile(fullgraph=True, backend="eager")
    x = torch.ones(1, 3, device=device)
    assert layer(x).dtype == torch.float32
    with torch.autocast("cpu", torch.bfloat16):
        assert layer(x).dtype == torch.float32
    assert layer(x).dtype == torch.float32
