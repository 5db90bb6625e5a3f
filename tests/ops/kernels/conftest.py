"""What the tests of the Triton kernels share; see ``test_triton``."""

import os

import pytest
import torch

INTERPRETS = os.environ.get("TRITON_INTERPRET") == "1"


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def device(request):
    if request.param == "cpu" and not INTERPRETS:
        pytest.skip("runs in test_in_the_interpreter")
    if request.param == "cuda" and (INTERPRETS or not torch.cuda.is_available()):
        pytest.skip("needs a CUDA device")
    return request.param


@pytest.fixture
def kernels(device, monkeypatch):
    """The module, with NaN in all memory that it gets, to see that all is written before it is read."""
    from v2m.ops.kernels import triton

    empty = torch.empty
    monkeypatch.setattr(torch, "empty", lambda *args, **kwargs: empty(*args, **kwargs).fill_(torch.nan))
    return triton
