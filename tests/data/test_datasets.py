import gzip
import shutil
import struct

import numpy as np
import pytest
from PIL import Image

from v2m.data import DataError, datasets, find_images, open_dataset, read_image


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
    monkeypatch.setattr(datasets, "DEBIAN_FASHION_MNIST", folder)
    train, val = (open_dataset("fashion-mnist", split, tmp_path / "cache") for split in ("train", "val"))
    assert (len(train), len(val)) == (20, 10)
    image, label = train[13]
    np.testing.assert_array_equal(np.asarray(image), images[13])
    assert label == 3
    assert train.classes[9] == "Ankle boot"

    shutil.rmtree(folder)
    assert len(open_dataset("fashion-mnist", "val", tmp_path / "cache")) == 10


def test_fashion_mnist_without_files_or_network_says_how_to_get_it(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets, "DEBIAN_FASHION_MNIST", tmp_path / "none")
    monkeypatch.setattr(datasets.FashionMNIST, "mirrors", ["http://127.0.0.1:9/"])
    with pytest.raises(DataError, match=r"fashion-mnist is not in .* could not be downloaded .*apt install"):
        open_dataset("fashion-mnist", "train", tmp_path)


def test_classes_of_another_model_are_refused(tmp_path):
    with pytest.raises(DataError, match="classes of digits are 0, 1"):
        open_dataset("digits", "val", tmp_path, classes=["cat", "dog"])


@pytest.mark.parametrize("val", ["val", "validation", "valid", "test"])
def test_a_folder_is_labelled_by_the_training_classes(image_folder, tmp_path, val):
    (image_folder / "val").rename(image_folder / val)
    shutil.rmtree(image_folder / val / "blue")
    data = open_dataset(str(image_folder), "val", tmp_path)
    assert data.classes == ["blue", "green", "red"]
    assert {label for _, label in data.samples} == {1, 2}


def test_a_folder_reads_many_formats_and_skips_hidden_folders(image_folder, tmp_path):
    picture = Image.new("RGB", (9, 7), "red")
    for suffix in ("webp", "JPEG", "bmp", "tif"):
        picture.save(image_folder / "train" / "red" / f"more.{suffix}")
    (image_folder / "train" / ".ipynb_checkpoints").mkdir()
    before = len(open_dataset(str(image_folder), "val", tmp_path)) * 2
    data = open_dataset(str(image_folder), "train", tmp_path)
    assert len(data) == before + 4
    assert data.classes == ["blue", "green", "red"]


def test_trouble_with_a_folder_is_named(image_folder, tmp_path):
    def message(split="train", source=image_folder):
        with pytest.raises(DataError) as caught:
            open_dataset(str(source), split, tmp_path)
        assert "\n" not in str(caught.value)
        return str(caught.value)

    assert "neither a dataset (digits, fashion-mnist, fashion-relations) nor a folder" in message(
        source="/no/such/place"
    )
    (image_folder / "val" / "purple").mkdir()
    assert "classes that are not known: purple" in message("val")
    shutil.rmtree(image_folder / "val")
    assert "no folder val/" in message("val")
    for image in (image_folder / "train" / "green").iterdir():
        image.unlink()
    assert "green" in message()
    (image_folder / "train").rename(image_folder / "trian")
    assert "no folder train/" in message()


def test_a_corrupt_image_is_an_error_and_not_replaced(image_folder, tmp_path):
    broken = image_folder / "val" / "green" / "0.png"
    broken.write_bytes(broken.read_bytes()[:60])
    data = open_dataset(str(image_folder), "val", tmp_path)
    index = [path for path, _ in data.samples].index(str(broken))
    with pytest.raises(DataError, match=r"val/green/0\.png: not a readable image"):
        data[index]


def test_sixteen_bits_are_reduced_to_eight_and_floats_refused(tmp_path):
    ramp = np.arange(0, 65536, 8192, dtype=np.uint16).reshape(1, 8)
    Image.fromarray(ramp).save(tmp_path / "ramp.png")
    Image.fromarray(ramp.astype(np.int32)).save(tmp_path / "ramp.tiff")
    for name in ("ramp.png", "ramp.tiff"):
        assert np.asarray(read_image(tmp_path / name)).tolist() == [list(range(0, 256, 32))]
    Image.fromarray(ramp.astype(np.float32) / 65535).save(tmp_path / "float.tiff")
    with pytest.raises(DataError, match=r"float\.tiff: not a readable image \(floating point"):
        read_image(tmp_path / "float.tiff")


def test_decompression_bombs_are_refused(tmp_path, monkeypatch):
    Image.new("L", (100, 100)).save(tmp_path / "bomb.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(DataError, match=r"bomb\.png: not a readable image"):
        read_image(tmp_path / "bomb.png")


def test_find_images(image_folder):
    (image_folder / "notes.txt").write_text("no image")
    found = find_images(image_folder)
    assert len(found) == len(list(image_folder.rglob("*.png")))
    assert found == sorted(found)
    assert find_images(found[0]) == found[:1]
    with pytest.raises(DataError, match="no such file or folder"):
        find_images(image_folder / "missing")
    (image_folder / "empty").mkdir()
    with pytest.raises(DataError, match="holds no images"):
        find_images(image_folder / "empty")
