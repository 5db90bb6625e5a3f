"""Datasets of classes: by name, from the Hugging Face hub, a table, or a folder in any of several formats."""

import os
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import get_args

from v2m.data.classes.dataset import LabelledImages
from v2m.data.classes.division import Division, divided
from v2m.data.classes.folders import FolderImages, find_flat, has_images_only
from v2m.data.classes.formats import find_format, missing_images, missing_split
from v2m.data.classes.huggingface import PREFIX, find_hub_splits
from v2m.data.classes.named import open_named
from v2m.data.classes.source import Opener, SplitSource
from v2m.data.classes.table import TABLES, find_table_in, find_table_splits, is_table
from v2m.data.image_files import subfolders
from v2m.data.layouts import refuse_other_tasks, refuse_undivided_masks
from v2m.data.named import DATASETS, check_task
from v2m.data.splits import ALL, SPLITS, Split, split_names, usual_split
from v2m.system.errors import DataError, few, is_text, same_name
from v2m.system.names import nearest


def open_dataset(
    source: str,
    split: Split,
    data_dir: Path,
    classes: Sequence[str] | None = None,
    *,
    allow_outside: bool = False,
    division: Division | None = None,
) -> LabelledImages:
    """Open one split of a dataset as (PIL image, class index) pairs, with its names in ``classes``.

    Args:
        source: A key of ``DATASETS`` for classification; a folder of class folders; one with ``train`` and
            ``val`` as folders of class folders, tar files, parquet files or lists of images; a table of
            images and labels; or ``hfds/NAME`` for a dataset on the Hugging Face hub.
        split: ``"train"`` or ``"val"`` (or what it is called there: validation, valid or test).
        data_dir: Where named datasets are kept or downloaded to.
        classes: The classes that labels count in; by default those of the training split.
        allow_outside: Whether tables and parquet files may name images outside of their folder.
        division: How images of a folder or table without validation images are divided. By default they are
            not: images that are in no split are then all to validate on.

    Raises:
        DataError: there is no such dataset, a split or class is missing or unknown, or a download failed.
    """
    if split not in get_args(Split):
        raise DataError(f"data: split is {split!r}, expected 'train' or 'val'")
    # A folder of another task would pass for one of two classes, images and masks.
    if os.path.isdir(source) and source not in DATASETS:
        for name in split_names(split):
            refuse_other_tasks(Path(source), name)
    splits = find_splits(source, data_dir, allow_outside=allow_outside, division=division)
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


def find_splits(
    source: str, data_dir: Path, *, allow_outside: bool = False, division: Division | None = None
) -> dict[str, Opener]:
    """The splits of a dataset by name, each as a function that opens it, labelled by its own classes.

    Args:
        source: As for ``open_dataset``.
        data_dir: Likewise.
        allow_outside: Likewise.
        division: Likewise.

    Raises:
        DataError: there is no such dataset.
    """
    check_task(source, "classification")
    if source in DATASETS:
        return {split: partial(open_named, source, split, data_dir) for split in get_args(Split)}
    if source.startswith(PREFIX):
        return dict(find_hub_splits(source, data_dir))
    root = Path(source)
    if is_table(root):
        found = find_table_splits(root, allow_outside=allow_outside)
    elif root.is_dir():
        found = _find_in_folder(root, data_dir, allow_outside)
    else:
        names = nearest(source, DATASETS)
        hint = f"; did you mean {names[0]}?" if names else ""
        raise DataError(
            f"data: {source!r} is neither a dataset ({', '.join(DATASETS)}) nor a folder, "
            f"nor a table ({', '.join(TABLES)}){hint}"
        )
    if ALL in found:  # of no split
        whole = found.pop(ALL)
        return divided(whole, source, division) if division else {"val": partial(open_whole, whole)}
    if division and set(found) == {"train"}:
        return divided(found["train"], source, division)
    return found


def _find_in_folder(root: Path, data_dir: Path, allow_outside: bool) -> dict[str, Opener]:
    """The splits of a folder by their usual names, or ``ALL`` images where it is not divided."""
    found: dict[str, Opener] = {}
    folders: dict[str, Path] = {}
    for name in dict.fromkeys((*SPLITS, *subfolders(root))):
        usual = usual_split(name)
        if usual is None or usual in found:
            continue
        if opener := find_format(SplitSource(root, name, data_dir, allow_outside)):
            found[usual], folders[usual] = opener, root / name
    others = [root / name for name in subfolders(root) if usual_split(name) is None]
    # A folder of images and nothing else is a class, such as one of trains beside one of planes.
    if any(map(has_images_only, others)) and all(_is_bare(found[name], folders[name]) for name in found):
        found = {}
    # Images to test on often come without their classes. They are left alone.
    if "train" in found and "test" in found and _is_bare(found["test"], folders["test"]):
        del found["test"]
    if not found:
        refuse_undivided_masks(root)
    if not found and (whole := find_table_in(root, allow_outside) or find_flat(root)):
        return {ALL: whole}
    return found


def open_whole(opener: Opener) -> LabelledImages:
    """Open all images of a dataset that has no splits, marked as such."""
    images = opener()
    images.is_whole = True
    return images


def _is_bare(opener: Opener, folder: Path) -> bool:
    """Whether a split is a folder of images without class folders or a list of their classes."""
    return getattr(opener, "func", None) is FolderImages and has_images_only(folder)


def _open(splits: dict[str, Opener], source: str, split: Split) -> LabelledImages:
    """Open the split of this name, or of another one for the same."""
    names = split_names(split)
    name = next((name for name in names if name in splits), None)
    if name:
        return splits[name]()
    if source.startswith(PREFIX) or is_table(Path(source)):
        raise DataError(f"data: {source} has the splits {', '.join(splits)}, expected {' or '.join(names)}")
    raise missing_split(source, split) if splits else missing_images(Path(source))
