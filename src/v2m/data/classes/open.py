"""Datasets of classes: by name, from the Hugging Face hub, or a folder in any of several formats."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import get_args

from v2m.data.classes.dataset import LabelledImages
from v2m.data.classes.formats import find_format, missing_split
from v2m.data.classes.huggingface import PREFIX, find_hub_splits
from v2m.data.classes.named import open_named
from v2m.data.classes.source import Opener, SplitSource
from v2m.data.layouts import refuse_other_tasks
from v2m.data.named import DATASETS, check_task
from v2m.data.splits import SPLITS, Split, split_names
from v2m.system.errors import DataError, few, is_text, same_name
from v2m.system.names import nearest


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
        source: A key of ``DATASETS`` for classification; a folder with ``train`` and ``val`` as folders of
            class folders, tar files, parquet files or lists of images; or ``hfds/NAME`` for a dataset on the
            Hugging Face hub.
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
    # A folder of another task would pass for one of two classes, images and masks.
    if source not in DATASETS and not source.startswith(PREFIX):
        for name in split_names(split):
            refuse_other_tasks(Path(source), name)
    data = _open(splits, source, split)
    # Labels always count in the classes of the training images, whatever a split has of them.
    if classes is None:
        classes = data.classes if split == "train" else _open(splits, source, "train").classes
    classes = [same_name(name) for name in classes]
    if source in DATASETS and classes != data.classes:
        raise DataError(f"data: the classes of {source} are {few(data.classes)}, the model's {few(classes)}")
    # Names go into JSON, which is UTF-8.
    unreadable = [name for name in data.classes if not is_text(name)]
    if unreadable:
        raise DataError(f"data: {data.source} has classes whose names are not UTF-8: {few(unreadable)}")
    if split == "train":
        # A list of classes may have some without images; a folder without any was meant to hold some.
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
    check_task(source, "classification")
    if source in DATASETS:
        return {split: partial(open_named, source, split, data_dir) for split in get_args(Split)}
    if source.startswith(PREFIX):
        return dict(find_hub_splits(source, data_dir))
    root = Path(source)
    if not root.is_dir():
        names = nearest(source, DATASETS)
        hint = f"; did you mean {names[0]}?" if names else ""
        raise DataError(f"data: {source!r} is neither a dataset ({', '.join(DATASETS)}) nor a folder{hint}")
    found = {name: find_format(SplitSource(root, name, data_dir, allow_outside)) for name in SPLITS}
    return {name: opener for name, opener in found.items() if opener}


def _open(splits: dict[str, Opener], source: str, split: Split) -> LabelledImages:
    """Open the split of this name, or of another one for the same."""
    names = split_names(split)
    name = next((name for name in names if name in splits), None)
    if name:
        return splits[name]()
    if source.startswith(PREFIX):
        raise DataError(f"data: {source} has the splits {', '.join(splits)}, expected {' or '.join(names)}")
    raise missing_split(source, split)
