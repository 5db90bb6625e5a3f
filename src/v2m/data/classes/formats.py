"""Datasets: by name, or a folder in any of several layouts, which is recognised by what is in it."""

import re
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import get_args

from v2m.data.classes.dataset import LabelledImages
from v2m.data.classes.folders import FolderImages, ListedImages, find_list, subfolders
from v2m.data.classes.named import DATASETS, Split, open_named
from v2m.data.classes.tables import PREFIX, find_hub_splits, open_parquet
from v2m.data.classes.tars import TarImages
from v2m.data.layouts import IMAGES, refuse_other_tasks
from v2m.system.errors import DataError, few, is_text, same_name
from v2m.system.names import nearest

VAL_SPLITS = ("val", "validation", "valid", "test")
SPLITS = ("train", *VAL_SPLITS)
SPLIT_IN_NAME = re.compile(rf"(?<![a-z])({'|'.join(SPLITS)})(?![a-z])")
TARS = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst")
PARQUET = (".parquet",)
TINY_IMAGENET = "wnids.txt"
"""A file by which Tiny ImageNet is known."""

Opener = Callable[[], LabelledImages]


def open_dataset(
    source: str,
    split: Split,
    data_dir: Path,
    classes: Sequence[str] | None = None,
    *,
    allow_outside: bool = False,
) -> LabelledImages:
    """Open one split of a dataset as (PIL image, class index) pairs, with its names in ``classes``.

    Args:
        source: A key of ``DATASETS``; a folder with ``train`` and ``val`` as folders of class folders, tar
            files or parquet files; or ``hfds/NAME`` for a dataset on the Hugging Face hub.
        split: ``"train"`` or ``"val"`` (or what it is called there: validation, valid or test).
        data_dir: Where named datasets are kept or downloaded to.
        classes: The classes that labels count in; by default those of the training split.
        allow_outside: Whether parquet files in a folder may name images outside of it.

    Raises:
        DataError: there is no such dataset, a split or class is missing or unknown, or a download failed.
    """
    if split not in get_args(Split):
        raise DataError(f"data: split is {split!r}, expected 'train' or 'val'")
    splits = find_splits(source, data_dir, allow_outside=allow_outside)
    if source not in DATASETS and not source.startswith(PREFIX):
        for name in ("train",) if split == "train" else VAL_SPLITS:
            refuse_other_tasks(Path(source), name)
    data = _open(splits, source, split)
    if classes is None:
        classes = data.classes if split == "train" else _open(splits, source, "train").classes
    classes = [same_name(name) for name in classes]
    if source in DATASETS and classes != data.classes:
        raise DataError(f"data: the classes of {source} are {few(data.classes)}, the model's {few(classes)}")
    unreadable = [name for name in data.classes if not is_text(name)]
    if unreadable:
        raise DataError(f"data: {data.source} has classes whose names are not UTF-8: {few(unreadable)}")
    if split == "train":
        empty = [] if data.declared else data.empty_classes()
        missing = [name for name in classes if name not in data.classes]
        if empty or missing:
            raise DataError(f"data: {data.source} has no images of the classes {few(empty or missing)}")
    data.relabel(classes)
    return data


def find_splits(source: str, data_dir: Path, *, allow_outside: bool = False) -> dict[str, Opener]:
    """The splits of a dataset by name, each as a function that opens it, labelled by its own classes.

    Args:
        source: As for ``open_dataset``.
        data_dir: Likewise.
        allow_outside: Likewise.

    Raises:
        DataError: there is no such dataset.
    """
    if source in DATASETS:
        return {split: partial(open_named, source, split, data_dir) for split in ("train", "val")}
    if source.startswith(PREFIX):
        return dict(find_hub_splits(source, data_dir))
    root = Path(source)
    if not root.is_dir():
        names = nearest(source, DATASETS)
        hint = f"; did you mean {names[0]}?" if names else ""
        raise DataError(f"data: {source!r} is neither a dataset ({', '.join(DATASETS)}) nor a folder{hint}")
    found = ((split, _find_split(root, split, data_dir, allow_outside)) for split in SPLITS)
    return {split: opener for split, opener in found if opener}


def _find_split(root: Path, split: str, data_dir: Path, allow_outside: bool) -> Opener | None:
    """How to open a split of a folder. A folder of class folders goes before the tar it may come from."""
    folder = root / split
    if listed := find_list(folder):
        return partial(ListedImages, folder, listed)
    if (root / TINY_IMAGENET).is_file() and subfolders(folder) == [IMAGES]:
        return None  # its images to test on have no classes
    if not subfolders(folder):
        tars = _split_files(root, split, TARS)
        if tars:
            plain = [path for path in tars if path.suffix == ".tar"]
            return partial(TarImages, plain or tars, root, SPLITS)
        files = _split_files(root, split, PARQUET)
        if files:
            return partial(open_parquet, files, root, split, data_dir, allow_outside=allow_outside)
    return partial(FolderImages, folder) if folder.is_dir() else None


def _split_files(root: Path, split: str, suffixes: tuple[str, ...]) -> list[Path]:
    """Files of a split: in its folder, or with its name in theirs, beside each other or in ``data``."""

    def files(folder: Path) -> list[Path]:
        names = folder.iterdir() if folder.is_dir() else ()
        return sorted(p for p in names if p.name.lower().endswith(suffixes) and not p.name.startswith("."))

    named = (
        [path for path in files(folder) if _split_in_name(path) == split] for folder in (root, root / "data")
    )
    return next((found for found in (files(root / split), *named) if found), [])


def _split_in_name(path: Path) -> str | None:
    found = SPLIT_IN_NAME.search(path.name.lower())
    return found[1] if found else None


def _open(splits: dict[str, Opener], source: str, split: Split) -> LabelledImages:
    """Open the split of this name, or of another one for the same."""
    names = ("train",) if split == "train" else VAL_SPLITS
    name = next((name for name in names if name in splits), None)
    if name is None:
        if source.startswith(PREFIX):
            raise DataError(
                f"data: {source} has the splits {', '.join(splits)}, expected {' or '.join(names)}"
            )
        raise DataError(f"data: {source} has no folder {split}/, nor {split}*.tar, nor {split}*.parquet")
    return splits[name]()
