import gc
import os
import re

import psutil
import pytest
import torch

from v2m.engine import parallel
from v2m.engine.device import available_devices, best_device, find_device, memory_mb, sum_dtype


def needs_cuda(test):
    return pytest.mark.gpu(pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")(test))


def test_memory_is_what_the_process_takes():
    gc.collect()  # what other tests have left must not go meanwhile
    # A difference of before and after would be none where a block goes into memory that was freed before.
    assert memory_mb(torch.device("cpu")) == pytest.approx(psutil.Process().memory_info().rss / 1e6, rel=0.02)


def test_a_device_is_found_by_its_name():
    assert find_device("auto") == best_device()
    assert find_device("cpu") == torch.device("cpu")
    assert available_devices()[0] == "cpu"
    for name in available_devices():
        assert find_device(name) == torch.device(name)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("cud", "device: 'cud' is no device, did you mean cuda?"),
        ("gpu", "device: 'gpu' is no device, did you mean cuda?"),
        ("CUDA:1", "device: 'CUDA:1' is no device, did you mean cuda:1?"),
        ("atuo", "device: 'atuo' is no device, did you mean auto?"),
        (
            "cpu:0",
            "device: 'cpu:0' is no device; expected auto, cpu, mps, cuda, xpu, or a numbered one such as",
        ),
        ("", "device: '' is no device; expected auto"),
        ("cuda:", "device: 'cuda:' is no device; expected auto"),
        ("cuda:\u0661", "is no device"),
        ("\x1b[31m", r"device: '\\x1b[31m' is no device; expected"),
    ],
)
def test_a_word_that_is_no_device_names_the_nearest(name, message):
    with pytest.raises(ValueError, match="^" + re.escape(message) if message.startswith("dev") else message):
        find_device(name)


def test_a_device_that_is_not_there_says_which_are():
    with pytest.raises(ValueError, match=r"^device: xpu:99 is not there, this machine has cpu"):
        find_device("xpu:99")


def test_sums_are_of_a_type_that_the_device_has():
    assert sum_dtype(torch.device("mps")) == torch.float32
    assert sum_dtype(torch.device("cpu")) == torch.float64


def test_processes_are_placed_where_they_are_told(monkeypatch):
    assert parallel.start("cpu").device == torch.device("cpu")
    assert "ACCELERATE_TORCH_DEVICE" not in os.environ
    monkeypatch.setenv("ACCELERATE_TORCH_DEVICE", "meta")  # the user's own is left for others
    assert parallel.start("cpu").device == torch.device("cpu")
    assert os.environ["ACCELERATE_TORCH_DEVICE"] == "meta"


@needs_cuda
def test_a_numbered_gpu_is_taken(monkeypatch):
    last = f"cuda:{torch.cuda.device_count() - 1}"
    accelerator = parallel.start(last)
    assert accelerator.device == torch.device(last)
    assert torch.cuda.current_device() == torch.device(last).index
    assert parallel.start("cpu").device == torch.device("cpu")
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ValueError, match=f"device: {last} with 2 processes, expected cuda"):
        parallel.start(last)


@needs_cuda
def test_memory_of_a_gpu_is_the_most_that_tensors_took():
    torch.ones(100, 1000, 1000, dtype=torch.uint8, device="cuda")  # freed at once
    assert memory_mb(torch.device("cuda")) >= 100
