"""Datasets of classes that come by name."""

from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from torchvision.datasets import FashionMNIST
from torchvision.datasets.utils import extract_archive

from v2m.data.classes.cifar import CIFAR, open_cifar
from v2m.data.classes.dataset import ArrayImages, LabelledImages
from v2m.data.classes.fashion_relations import RELATIONS, build_relations
from v2m.data.classes.tiny_imagenet import open_tiny_imagenet
from v2m.data.splits import Split
from v2m.system import network
from v2m.system.errors import DataError
from v2m.system.files import put_in_place
from v2m.system.network import bounded

DEBIAN_FASHION_MNIST = Path("/usr/share/datasets/fashion-mnist")


def open_named(source: str, split: Split, data_dir: Path) -> LabelledImages:
    """Open one split of a key of ``DATASETS`` that is for classification.

    Raises:
        DataError: it could not be downloaded, or is damaged.
    """
    if source in CIFAR:
        return open_cifar(CIFAR[source], split, data_dir)
    if source == "tiny-imagenet":
        return open_tiny_imagenet(split, data_dir)
    if source == "digits":
        return _open_digits(split)
    if source == "fashion-mnist":
        garments = _open_fashion_mnist(split, data_dir)
        images, targets = garments.data.numpy(), garments.targets.numpy()
        return ArrayImages(f"{source} {split}", images, targets, garments.classes)
    return _open_fashion_relations(split, data_dir)


def _open_digits(split: Split) -> ArrayImages:
    """The 1,797 handwritten digits of scikit-learn, 8x8 gray: 1,437 to train on, 360 to test, stratified."""
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    digits = load_digits()
    images = np.round(digits.images * (255 / 16)).astype(np.uint8)
    train, val = train_test_split(
        np.arange(len(images)), test_size=360, random_state=0, stratify=digits.target
    )
    chosen = train if split == "train" else val
    return ArrayImages(
        f"digits {split}", images[chosen], digits.target[chosen], [str(name) for name in digits.target_names]
    )


def _open_fashion_relations(split: Split, data_dir: Path) -> ArrayImages:
    """20,000 scenes of Fashion-MNIST's training images, 4,000 of its test images."""
    garments = _open_fashion_mnist(split, data_dir)
    count, seed = (20_000, 0) if split == "train" else (4_000, 1)
    images, targets = build_relations(garments.data.numpy(), garments.targets.numpy(), count, seed)
    return ArrayImages(f"fashion-relations {split}", images, targets, RELATIONS)


def _open_fashion_mnist(split: Split, data_dir: Path) -> FashionMNIST:
    # Debian has the files as a package: unpacked, they are where torchvision looks for its download.
    raw = data_dir / "FashionMNIST" / "raw"
    names = [archive for archive, _ in FashionMNIST.resources]
    files = [raw / archive.removesuffix(".gz") for archive in names]
    archives = [DEBIAN_FASHION_MNIST / archive for archive in names]
    if not all(path.is_file() for path in files) and all(path.is_file() for path in archives):
        raw.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(dir=raw, prefix=".unpacking-") as partial:
            # One by one and whole, since other processes may be reading or unpacking them.
            for archive, path in zip(archives, files, strict=True):
                put_in_place(Path(extract_archive(str(archive), partial)), path)
    try:
        with bounded(network.DOWNLOAD):
            return FashionMNIST(str(data_dir), train=split == "train", download=True)
    except (OSError, RuntimeError, ValueError) as error:
        reason = " ".join(str(error).split())  # torchvision lists its mirrors in several lines
        if all(path.is_file() for path in files):
            raise DataError(
                f"data: fashion-mnist in {raw} is damaged ({reason}); delete that folder to have it anew"
            ) from None
        raise DataError(
            f"data: fashion-mnist is not in {data_dir} and could not be downloaded ({reason}); "
            "on Debian and Ubuntu, 'apt install dataset-fashion-mnist' brings it too"
        ) from None
