"""CIFAR-10 and CIFAR-100 (Krizhevsky 2009), from the files for Python that their author gives away."""

import io
import pickle
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from torchvision.datasets import CIFAR10, CIFAR100

from v2m.data.classes.dataset import ArrayImages
from v2m.data.originals import Original, find_original
from v2m.data.splits import Split
from v2m.system.downloads import WebFile, file_md5
from v2m.system.errors import DataError, short
from v2m.system.files import read_file

PIXELS = (3, 32, 32)


@dataclass(frozen=True)
class Cifar:
    """One of the two datasets.

    Attributes:
        original: Its archive and folder.
        files: Files of each split.
        meta: File with the names of the classes.
        md5: The MD5 of each file.
        labels: Key of the labels in a file.
        names: Key of the names.
    """

    original: Original
    files: dict[Split, tuple[str, ...]]
    meta: str
    md5: dict[str, str]
    labels: Literal["labels", "fine_labels"]
    names: str


def _describe(name: str, kind: type[CIFAR10], size: int, labels: Literal["labels", "fine_labels"]) -> Cifar:
    """What torchvision knows of a dataset."""
    train, val = (tuple(file for file, _ in files) for files in (kind.train_list, kind.test_list))
    meta = kind.meta["filename"]
    original = Original(
        name,
        WebFile(kind.url, size, kind.tgz_md5),
        (kind.filename,),
        kind.base_folder,
        holds=(*train, *val, meta),
        unpacked=2**28,
    )
    md5 = {file: md5 for file, md5 in [*kind.train_list, *kind.test_list]} | {meta: kind.meta["md5"]}
    return Cifar(original, dict(train=train, val=val), meta, md5, labels, kind.meta["key"])


CIFAR = {
    "cifar10": _describe("cifar10", CIFAR10, 170_498_071, "labels"),
    "cifar100": _describe("cifar100", CIFAR100, 169_001_437, "fine_labels"),
}
"""The two datasets by name."""


def open_cifar(cifar: Cifar, split: Split, data_dir: Path) -> ArrayImages:
    """Open one split.

    Raises:
        DataError: it cannot be had, or a file of it is damaged.
    """
    folder, name = find_original(cifar.original, data_dir), cifar.original.name
    images, targets = [], []
    for file in cifar.files[split]:
        part = _read(cifar, folder / file)
        images.append(part["data"])
        targets += part[cifar.labels]
    pixels = np.concatenate(images).reshape(-1, *PIXELS).transpose(0, 2, 3, 1)
    classes = _read(cifar, folder / cifar.meta)[cifar.names]
    return ArrayImages(f"{name} {split}", np.ascontiguousarray(pixels), np.asarray(targets), classes)


def _read(cifar: Cifar, path: Path) -> dict[str, Any]:
    """What is in a file, which is a pickle that Python 2 wrote.

    Raises:
        DataError: it is damaged.
    """
    if file_md5(path) != cifar.md5[path.name]:
        raise DataError(
            f"data: {path} is damaged, or no file of {cifar.original.name} (its MD5 is another one); delete "
            f"{path.parent} to have it anew"
        )
    try:
        content: dict[str, Any] = _PlainUnpickler(
            io.BytesIO(read_file(path, 2**28)), encoding="latin1"
        ).load()
    except (pickle.UnpicklingError, EOFError, ValueError, TypeError) as error:
        raise DataError(f"data: {path} is no file of {cifar.original.name} ({short(error)})") from None
    return {key: np.asarray(value) if isinstance(value, _Array) else value for key, value in content.items()}


class _Array:
    """An array in a pickle: its bytes. NumPy's own functions are not called, so no pickle can use them."""

    def __init__(self, *of_an_empty_array: Any) -> None:
        self._values = np.empty(0, np.uint8)

    def __setstate__(self, state: Any) -> None:
        _, shape, kind, is_fortran, content = state
        if not isinstance(kind, _Bytes):
            raise ValueError("an array that is not of bytes")
        # Python 2 knew bytes as text, which the encoding gives back as they were.
        flat = np.frombuffer(content.encode("latin1"), np.uint8)
        self._values = flat.reshape(shape, order="F" if is_fortran else "C")

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> npt.NDArray[np.uint8]:
        return self._values


class _Bytes:
    """NumPy's type of bytes in a pickle."""

    def __init__(self, kind: str, *others: Any) -> None:
        if kind != "u1":
            raise ValueError(f"an array of {kind!r}, expected bytes")

    def __setstate__(self, state: Any) -> None:
        """The order of bytes and the like, which single bytes do not have."""


class _PlainUnpickler(pickle.Unpickler):
    """Reads arrays of bytes, text, numbers and lists, and calls nothing else that a pickle names."""

    def find_class(self, module: str, name: str) -> Any:
        known = {"_reconstruct": _Array, "ndarray": _Array, "dtype": _Bytes}
        if module.partition(".")[0] != "numpy" or name not in known:
            raise pickle.UnpicklingError(f"it names {module}.{name}")
        return known[name]
