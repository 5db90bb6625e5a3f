import hashlib
import os
import pickle
from dataclasses import replace

import numpy as np
import pytest

from tests.data.originals import write_cifar
from v2m.data import open_dataset
from v2m.data.classes import cifar
from v2m.system.errors import DataError


@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
def test_the_files_of_python_2_are_read(tmp_path, monkeypatch, name):
    images = write_cifar(tmp_path, name, monkeypatch)
    for split in ("train", "val"):
        data = open_dataset(name, split, tmp_path)
        assert data.classes == [f"{name} class {number}" for number in range(3)]
        assert len(data) == len(images[split])
        for index in (0, 3, len(data) - 1):
            image, target = data[index]
            assert (image.mode, image.size, target) == ("RGB", (32, 32), index % 4 % 3)
            np.testing.assert_array_equal(np.asarray(image), images[split][index])


def test_facts_are_torchvisions_and_those_of_the_authors():
    known = cifar.CIFAR["cifar10"]
    assert known.files["train"] == tuple(f"data_batch_{number}" for number in range(1, 6))
    assert known.files["val"] == ("test_batch",)
    assert set(known.md5) == {*known.files["train"], "test_batch", "batches.meta"}
    assert cifar.CIFAR["cifar100"].original.folder == "cifar-100-python"


def test_a_damaged_file_is_named(tmp_path, monkeypatch):
    write_cifar(tmp_path, "cifar10", monkeypatch)
    file = tmp_path / "cifar-10-batches-py" / "data_batch_3"
    file.write_bytes(file.read_bytes()[:-1] + b"x")
    with pytest.raises(DataError, match=r"data_batch_3 is damaged, or no file of cifar10"):
        open_dataset("cifar10", "train", tmp_path)


class Evil:
    def __init__(self, call, *arguments):
        self.call, self.arguments = call, arguments

    def __reduce__(self):
        return self.call, self.arguments


@pytest.mark.parametrize(
    "content",
    [
        Evil(os.mkdir, "evil"),
        Evil(eval, "__import__('os').mkdir('evil')"),
        Evil(np.load, "evil.npy", None, True),
        Evil(np.zeros, 10**12),
        np.arange(3),
    ],
)
def test_no_pickle_runs_code_even_if_its_hash_is_right(tmp_path, monkeypatch, content):
    """As if somebody had made a file with the MD5 of the original."""
    monkeypatch.chdir(tmp_path)
    write_cifar(tmp_path, "cifar10", monkeypatch)
    file = tmp_path / "cifar-10-batches-py" / "test_batch"
    file.write_bytes(pickle.dumps({"data": content, "labels": [0]}, protocol=2))
    known = cifar.CIFAR["cifar10"]
    md5 = known.md5 | dict(test_batch=hashlib.md5(file.read_bytes()).hexdigest())
    monkeypatch.setitem(cifar.CIFAR, "cifar10", replace(known, md5=md5))
    with pytest.raises(DataError, match=r"test_batch is no file of cifar10"):
        open_dataset("cifar10", "val", tmp_path)
    assert not (tmp_path / "evil").exists()
