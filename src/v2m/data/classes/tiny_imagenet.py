"""Tiny ImageNet (Stanford's CS231n, 2015): 200 of ImageNet's classes, 500 and 50 images of each."""

from pathlib import Path

from v2m.data.class_names import told_apart
from v2m.data.classes.dataset import LabelledImages
from v2m.data.classes.folders import FolderImages, ListedImages
from v2m.data.originals import Original, find_original
from v2m.data.splits import Split
from v2m.system.downloads import WebFile
from v2m.system.errors import DataError
from v2m.system.files import read_lines

WORDS, LABELS = "words.txt", "val_annotations.txt"
ORIGINAL = Original(
    "tiny-imagenet",
    WebFile(
        "http://cs231n.stanford.edu/tiny-imagenet-200.zip", 248_100_043, "90528d7ca1a48142e341f4ef8d21d0de"
    ),
    ("tiny-imagenet-200.zip",),
    "tiny-imagenet-200",
    holds=("train", f"val/{LABELS}", WORDS),
    unpacked=2**30,
)
COUNTS: dict[Split, int] = dict(train=100_000, val=10_000)
"""Images of each split."""


def open_tiny_imagenet(split: Split, data_dir: Path) -> LabelledImages:
    """Open one split. Classes are in the order of their ids, and have the first of their names.

    Raises:
        DataError: it cannot be had, or images are missing.
    """
    root = find_original(ORIGINAL, data_dir)
    folder = root / split
    data = FolderImages(folder) if split == "train" else ListedImages(folder, folder / LABELS)
    if len(data) != COUNTS[split]:
        raise DataError(
            f"data: {folder} has {len(data):,} images, tiny-imagenet has {COUNTS[split]:,}; give the folder "
            f"as --data {root} to use what is there, or delete it to have it anew"
        )
    data.classes = _names(root / WORDS, data.classes)
    return data


def _names(words: Path, identifiers: list[str]) -> list[str]:
    """The first name of each class, with the id where several classes have the name.

    Raises:
        DataError: a class has no name.
    """
    lines = (line.partition("\t") for line in read_lines(words))
    names = {identifier: known.split(",")[0].strip() for identifier, _, known in lines}
    nameless = [identifier for identifier in identifiers if not names.get(identifier)]
    if nameless:
        raise DataError(f"data: {words} has no name of the class {nameless[0]}")
    return told_apart([names[identifier] for identifier in identifiers], identifiers)
