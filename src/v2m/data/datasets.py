"""Datasets: some that come by name, and any folder of images."""

import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt
from PIL import Image
from torchvision.datasets import FashionMNIST, ImageFolder, VisionDataset
from torchvision.datasets.folder import IMG_EXTENSIONS
from torchvision.datasets.utils import extract_archive

from v2m.data.errors import DataError, UnreadableImageError
from v2m.data.relations import RELATIONS, build_scenes

Split: TypeAlias = Literal["train", "val"]

DEBIAN_FASHION_MNIST = Path("/usr/share/datasets/fashion-mnist")
VAL_FOLDERS = ("val", "validation", "valid", "test")


@dataclass(frozen=True)
class DatasetInfo:
    """What a model must know of a dataset that comes by name.

    Attributes:
        img_size: Image height and width in pixels.
        in_chans: Image channels.
        mean: Mean of every channel over the training images, of values in 0..1.
        std: Standard deviation likewise.
        crop_scale: Least and largest share of an image that a random crop should keep.
        hflip: Probability of mirroring a training image; 0 where mirrored images are of no class.
    """

    img_size: tuple[int, int]
    in_chans: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    crop_scale: tuple[float, float]
    hflip: float


DATASETS = {
    "digits": DatasetInfo((8, 8), 1, (0.305,), (0.376,), crop_scale=(0.9, 1.0), hflip=0.0),
    "fashion-mnist": DatasetInfo((28, 28), 1, (0.286,), (0.353,), crop_scale=(0.75, 1.0), hflip=0.5),
    "fashion-relations": DatasetInfo((40, 40), 1, (0.115,), (0.252,), crop_scale=(0.9, 1.0), hflip=0.0),
}


def open_dataset(
    source: str, split: Split, data_dir: Path, classes: Sequence[str] | None = None
) -> VisionDataset:
    """Open one split of a dataset as (PIL image, class index) pairs, with its names in ``classes``.

    Args:
        source: A key of ``DATASETS``, or a folder with ``train/<class>/<image>`` and ``val/<class>/<image>``.
        split: ``"train"`` or ``"val"`` (for the named datasets their test images).
        data_dir: Where named datasets are kept or downloaded to.
        classes: The classes that labels count in; by default those of the training split.

    Raises:
        DataError: there is no such dataset, a split or class is missing or unknown, or a download failed.
    """
    dataset: VisionDataset
    if source == "digits":
        dataset = _open_digits(split)
    elif source == "fashion-mnist":
        dataset = _open_fashion_mnist(split, data_dir)
    elif source == "fashion-relations":
        dataset = _open_fashion_relations(split, data_dir)
    else:
        return _open_folder(Path(source), split, classes)
    if classes is not None and list(classes) != list(dataset.classes):
        raise DataError(
            f"data: the classes of {source} are {_few(dataset.classes)}, the model's {_few(classes)}"
        )
    return dataset


class ArrayDataset(VisionDataset):
    """Gray images ``[N, H, W]`` in memory, with their class indices ``[N]``."""

    def __init__(
        self, images: npt.NDArray[np.uint8], targets: npt.NDArray[np.int64], classes: Sequence[str]
    ) -> None:
        super().__init__(root="")
        self.images = images
        self.targets = targets.tolist()
        self.classes = list(classes)

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Any, int]:
        image = Image.fromarray(self.images[index])
        return (self.transform(image) if self.transform else image), self.targets[index]


def _open_digits(split: Split) -> ArrayDataset:
    """The 1,797 handwritten digits of scikit-learn, 8x8 gray: 1,437 to train on, 360 to test, stratified."""
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    digits = load_digits()
    images = np.round(digits.images * (255 / 16)).astype(np.uint8)
    train, val = train_test_split(
        np.arange(len(images)), test_size=360, random_state=0, stratify=digits.target
    )
    chosen = train if split == "train" else val
    return ArrayDataset(images[chosen], digits.target[chosen], [str(name) for name in digits.target_names])


def _open_fashion_relations(split: Split, data_dir: Path) -> ArrayDataset:
    """20,000 scenes of Fashion-MNIST's training images, 4,000 of its test images."""
    garments = _open_fashion_mnist(split, data_dir)
    count, seed = (20_000, 0) if split == "train" else (4_000, 1)
    images, targets = build_scenes(garments.data.numpy(), garments.targets.numpy(), count, seed)
    return ArrayDataset(images, targets, RELATIONS)


def _open_fashion_mnist(split: Split, data_dir: Path) -> FashionMNIST:
    raw = data_dir / "FashionMNIST" / "raw"
    if DEBIAN_FASHION_MNIST.is_dir() and not raw.is_dir():
        partial = raw.with_name(f"raw.{os.getpid()}")
        partial.mkdir(parents=True)
        for archive in DEBIAN_FASHION_MNIST.glob("*.gz"):
            extract_archive(str(archive), str(partial))
        try:
            partial.rename(raw)
        except OSError:  # another process was first
            shutil.rmtree(partial)
    try:
        return FashionMNIST(str(data_dir), train=split == "train", download=True)
    except (OSError, RuntimeError) as error:
        raise DataError(
            f"data: fashion-mnist is not in {data_dir} and could not be downloaded ({first_line(error)}); "
            "on Debian and Ubuntu, 'apt install dataset-fashion-mnist' brings it too"
        ) from None


def _open_folder(root: Path, split: Split, classes: Sequence[str] | None) -> "FolderDataset":
    if not root.is_dir():
        nearest = get_close_matches(str(root), DATASETS, n=1)
        hint = f"; did you mean {nearest[0]}?" if nearest else ""
        raise DataError(
            f"data: {str(root)!r} is neither a dataset ({', '.join(DATASETS)}) nor a folder{hint}"
        )
    train = root / "train"
    val = next((root / name for name in VAL_FOLDERS if (root / name).is_dir()), root / VAL_FOLDERS[0])
    folder = train if split == "train" else val
    if not folder.is_dir():
        raise DataError(
            f"data: {root} has no folder {folder.name}/, expected train/<class>/ and val/<class>/"
        )
    if classes is None:
        if not train.is_dir():
            raise DataError(f"data: {root} has no folder train/, which names the classes")
        classes = _class_folders(train)
    return FolderDataset(folder, classes, allow_missing=split == "val")


class FolderDataset(ImageFolder):
    """Images in one folder per class, labelled by their place in a given list of classes.

    An unreadable image raises ``DataError``; none is skipped or replaced.
    """

    def __init__(self, root: Path, classes: Sequence[str], allow_missing: bool) -> None:
        self._classes = list(classes)
        self._allow_missing = allow_missing
        try:
            super().__init__(str(root), loader=read_image, allow_empty=allow_missing)
        except FileNotFoundError as error:
            raise DataError(f"data: {root}: {first_line(error)}") from None
        if not self.samples:
            raise DataError(f"data: {root} holds no images ({', '.join(IMG_EXTENSIONS)})")

    def find_classes(self, directory: str) -> tuple[list[str], dict[str, int]]:
        """The given classes; their folders must be there, and no others."""
        found = _class_folders(Path(directory))
        unknown = [name for name in found if name not in self._classes]
        missing = [name for name in self._classes if name not in found]
        if unknown:
            raise DataError(f"data: {directory} has classes that are not known: {_few(unknown)}")
        if missing and not self._allow_missing:
            raise DataError(f"data: {directory} lacks the classes {_few(missing)}")
        return self._classes, {name: index for index, name in enumerate(self._classes)}


def read_image(path: str | Path) -> Image.Image:
    """Read an image file whole (the first frame of an animation), 16 bits a pixel reduced to 8.

    Raises:
        UnreadableImageError: it cannot be read.
    """
    try:
        with Image.open(path) as image:
            image.load()
            if image.mode == "F":
                raise ValueError("floating point pixels have no known range")
            if image.mode.startswith("I"):  # 16 bits a pixel; PIL's own conversion would clip it to 8
                return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
            return image.copy()
    except (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError) as error:
        raise UnreadableImageError(str(path), first_line(error)) from None


def find_images(path: Path) -> list[Path]:
    """The file itself, or all image files in a folder and below, in order of name.

    Raises:
        DataError: there is no such file or folder, or the folder holds no images.
    """
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise DataError(f"{path}: no such file or folder")
    images = sorted(p for p in path.rglob("*") if p.suffix.lower() in IMG_EXTENSIONS and p.is_file())
    if not images:
        raise DataError(f"{path}: the folder holds no images ({', '.join(IMG_EXTENSIONS)})")
    return images


def _class_folders(folder: Path) -> list[str]:
    names = sorted(p.name for p in folder.iterdir() if p.is_dir() and not p.name.startswith("."))
    if not names:
        raise DataError(f"data: {folder} has no class folders, expected {folder.name}/<class>/<image>")
    return names


def _few(names: Sequence[str]) -> str:
    return ", ".join(names[:5]) + (f", ... ({len(names)} in all)" if len(names) > 5 else "")


def first_line(error: Exception) -> str:
    """The first line of an error's message, or its type where there is none."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]
