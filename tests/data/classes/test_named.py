import gzip
import shutil
import struct

import numpy as np
import pytest

from tests.data.servers import slow_server
from v2m.data import open_dataset
from v2m.data.classes import named
from v2m.system import network
from v2m.system.errors import DataError


def test_digits_are_the_bundled_ones_split_without_overlap(tmp_path):
    train, val = (open_dataset("digits", split, tmp_path) for split in ("train", "val"))
    assert (len(train), len(val)) == (1437, 360)
    assert train.classes == [str(i) for i in range(10)]
    image, label = val[0]
    assert (image.mode, image.size, type(label)) == ("L", (8, 8), int)
    assert image.getextrema()[1] == 255
    assert np.bincount(val.targets).min() >= 34

    from sklearn.datasets import load_digits

    both = np.concatenate([train.images, val.images]).reshape(1797, -1)
    original = np.round(load_digits().images.reshape(1797, -1) * 255 / 16)
    assert sorted(map(bytes, both)) == sorted(map(bytes, original.astype(np.uint8)))


@pytest.fixture
def fashion_archives(tmp_path):
    """Four archives in Fashion-MNIST's format, of 20 training and 10 test images."""
    folder = tmp_path / "debian"
    folder.mkdir()
    images = np.random.default_rng(0).integers(0, 256, (20, 28, 28), dtype=np.uint8)
    for part, count in (("train", 20), ("t10k", 10)):
        with gzip.open(folder / f"{part}-images-idx3-ubyte.gz", "wb") as file:
            file.write(struct.pack(">IIII", 2051, count, 28, 28) + images[:count].tobytes())
        with gzip.open(folder / f"{part}-labels-idx1-ubyte.gz", "wb") as file:
            file.write(struct.pack(">II", 2049, count) + bytes(i % 10 for i in range(count)))
    return folder, images


def test_fashion_mnist_is_read_from_the_debian_package(fashion_archives, tmp_path, monkeypatch):
    folder, images = fashion_archives
    monkeypatch.setattr(named, "DEBIAN_FASHION_MNIST", folder)
    train, val = (open_dataset("fashion-mnist", split, tmp_path / "cache") for split in ("train", "val"))
    assert (len(train), len(val)) == (20, 10)
    image, label = train[13]
    np.testing.assert_array_equal(np.asarray(image), images[13])
    assert label == 3
    assert train.classes[9] == "Ankle boot"

    shutil.rmtree(folder)
    assert len(open_dataset("fashion-mnist", "val", tmp_path / "cache")) == 10


def test_fashion_mnist_without_files_or_network_says_how_to_get_it(tmp_path, monkeypatch):
    monkeypatch.setattr(named, "DEBIAN_FASHION_MNIST", tmp_path / "none")
    monkeypatch.setattr(named.FashionMNIST, "mirrors", ["http://127.0.0.1:9/"])
    with pytest.raises(DataError, match=r"fashion-mnist is not in .* could not be downloaded .*apt install"):
        open_dataset("fashion-mnist", "train", tmp_path)


@pytest.mark.parametrize("is_dripping", [False, True])
def test_fashion_mnist_of_a_server_that_never_ends_is_one_line(tmp_path, monkeypatch, is_dripping):
    monkeypatch.setattr(named, "DEBIAN_FASHION_MNIST", tmp_path / "none")
    monkeypatch.setattr(network, "DOWNLOAD", 1.0)
    with slow_server(is_dripping) as address:
        monkeypatch.setattr(named.FashionMNIST, "mirrors", [address])
        with pytest.raises(
            DataError, match=r"could not be downloaded \(.*(timed out|did not finish)"
        ) as caught:
            open_dataset("fashion-mnist", "train", tmp_path)
    assert "\n" not in str(caught.value)


def test_classes_of_another_model_are_refused(tmp_path):
    with pytest.raises(DataError, match="classes of digits are 0, 1"):
        open_dataset("digits", "val", tmp_path, classes=["cat", "dog"])
