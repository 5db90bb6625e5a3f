import gc

import pytest
import torch

from v2m.engine.device import memory_mb


def test_memory_is_what_the_process_takes():
    gc.collect()  # what other tests have left must not go meanwhile
    before = memory_mb(torch.device("cpu"))
    block = torch.ones(100, 1000, 1000, dtype=torch.uint8)
    assert 90 < memory_mb(torch.device("cpu")) - before < 130
    del block


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_memory_of_a_gpu_is_the_most_that_tensors_took():
    torch.ones(100, 1000, 1000, dtype=torch.uint8, device="cuda")  # freed at once
    assert memory_mb(torch.device("cuda")) >= 100
