"""Splits of a folder of images and masks: finding and opening them, and what their values and classes are."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import get_args

from v2m.data.class_names import read_class_names
from v2m.data.image_files import is_image, tell_other_images, walk_files
from v2m.data.images import tell_hidden_turns
from v2m.data.layouts import IMAGES, MASKS
from v2m.data.masks import camvid
from v2m.data.masks.dataset import MaskedImages
from v2m.data.masks.folders import MaskFolders, find_folders
from v2m.data.named import check_task
from v2m.data.splits import Split
from v2m.system.caches import user_cache
from v2m.system.errors import DataError, few, same_name
from v2m.system.files import read_lines

MASK_SUFFIX = ".png"
ADE_OBJECTS, ADE_CLASSES = "objectInfo150.txt", 150
"""ADE20K's list of classes, and how many there are."""


def open_masks(
    source: str,
    split: Split,
    classes: Sequence[str] | None = None,
    ignore_index: int = 255,
    label_map: Mapping[int, int] | None = None,
    *,
    data_dir: Path | None = None,
) -> MaskedImages:
    """Open one split of a folder of images with masks, or of ``camvid``.

    The folder has ``images/<split>`` with ``masks/<split>``, or ``<split>/images`` with ``<split>/masks``;
    ``annotations`` and ``labels`` are other names for ``masks``. Masks are PNG files, matched by their path
    below these folders without its suffix. ``classes.txt`` or ``labels.txt`` has a class name per line.

    ADE20K is taken as it is unpacked, and is known by its ``objectInfo150.txt``, or by a folder ``training``
    of images with 150 classes. Its values count from 1, and 0 is ignored, unless there is a ``label_map``.

    Args:
        source: The folder, or ``camvid``.
        split: ``"train"`` (also training) or ``"val"`` (also validation, valid or test).
        classes: Names that the classes must have, and have where the folder has no list; None for any.
        ignore_index: Label of pixels that have none.
        label_map: Labels of values in the masks; other values are labels themselves.
        data_dir: Where named datasets are looked for, and downloaded to; None for the user's cache.

    Raises:
        DataError: there is no such folder, split or list, images and masks are not in pairs, or a download
            failed.
    """
    if split not in get_args(Split):
        raise DataError(f"data: split is {split!r}, expected 'train' or 'val'")
    check_task(source, "segmentation")
    if source == camvid.NAME:
        folders, names = camvid.find_camvid(data_dir or user_cache())[split], list(camvid.CLASSES)
    else:
        folders, names = find_folders(_existing(source), split), _class_names(Path(source), classes)
    if classes is not None and names != [same_name(name) for name in classes]:
        raise DataError(f"data: the classes of {source} are {few(names)}, the model's {few(classes)}")
    if 0 <= ignore_index < len(names):
        raise DataError(
            f"data: ignore_index is {ignore_index}, which is the class {names[ignore_index]!r}; give one "
            f"that is none of {len(names)} classes, and map values to it by label_map"
        )
    if label_map is None:
        label_map = find_label_map(source, names, ignore_index)

    # Listed once, for the images and for the files that only look like some.
    files = list(walk_files(folders.images))
    others = tell_other_images(folders.images, files)
    data = MaskedImages(
        str(folders.images), _find_pairs(folders, files, others), names, ignore_index, label_map
    )
    data.warnings += others + tell_hidden_turns(data.source, len(data), data.name)
    return data


def _existing(source: str) -> Path:
    if not Path(source).is_dir():
        raise DataError(
            f"data: {source!r} is neither a dataset ({camvid.NAME}) nor a folder, expected one with "
            f"{IMAGES}/train and {MASKS[0]}/train"
        )
    return Path(source)


def _class_names(root: Path, classes: Sequence[str] | None) -> list[str]:
    """Names of the classes: those in the folder, else those that a model knows."""
    # A list beside the masks goes before what a model knows: values count in the order of that list.
    names = mask_class_names(root) or (list(classes) if classes is not None else None)
    if names is None:
        raise DataError(
            f"data: {root} has no class names, write them into {root / 'classes.txt'}, one a line: "
            "the first is that of label 0"
        )
    return names


def _find_pairs(folders: MaskFolders, files: Sequence[str], others: Sequence[str]) -> list[tuple[Path, Path]]:
    """Images among the files of their folder with their masks, in order of name."""
    images, same_images = match_by_stem(folders.images, filter(is_image, files))
    masks, same_masks = match_by_stem(folders.masks, filter(is_mask, walk_files(folders.masks)))
    for path, first in same_images + same_masks:
        raise DataError(f"data: {first} and {path.name} have one name, expected an image each")
    if not images:
        raise DataError("; ".join([f"data: {folders.images} holds no images", *others]))
    for what, lone in (
        (f"images without a mask ({MASK_SUFFIX}) in {folders.masks}", images.keys() - masks.keys()),
        (f"masks without an image in {folders.images}", masks.keys() - images.keys()),
    ):
        if lone:
            raise DataError(f"data: {what}: {few(sorted(lone))}")
    return [(images[stem], masks[stem]) for stem in sorted(images)]


def match_by_stem(folder: Path, files: Iterable[str]) -> tuple[dict[str, Path], list[tuple[Path, Path]]]:
    """Files by what an image and its mask have in common: their path in the folder without suffix (NFC).

    Args:
        folder: The folder.
        files: Paths of files in it and below.

    Returns:
        The first file of each stem, and the others with the first one, in their order.
    """
    found: dict[str, Path] = {}
    others = []
    for path in map(Path, files):
        first = found.setdefault(same_name(str(path.relative_to(folder).with_suffix(""))), path)
        if first is not path:
            others.append((path, first))
    return found, others


def is_mask(path: str) -> bool:
    """Whether a file is taken for a mask."""
    return path.lower().endswith(MASK_SUFFIX)


def find_label_map(source: str, names: Sequence[str] | None, ignore_index: int) -> dict[int, int] | None:
    """Labels of the values in the masks of ADE20K and CamVid; None for others, whose values are labels.

    Args:
        source: The folder, or ``camvid``.
        names: Names of its classes, if they are known.
        ignore_index: Label of pixels that have none.
    """
    if source == camvid.NAME:
        return {camvid.UNLABELLED: ignore_index}
    if names is None or not _is_ade(Path(source), names):
        return None
    return {0: ignore_index} | {value: value - 1 for value in range(1, len(names) + 1)}


def mask_class_names(root: Path) -> list[str] | None:
    """Names in a list of classes, else in ADE20K's list, else None."""
    if names := read_class_names(root):
        return names
    file = root / ADE_OBJECTS
    if not file.is_file():
        return None
    # Below a line of headings the last column has the synonyms of a class, the usual name first.
    names = [row.split("\t")[-1].split(",")[0].strip() for row in read_lines(file)[1:]]
    if not all(names) or not names:
        which = f"line {names.index('') + 2} has no class" if names else "it has no classes"
        raise DataError(f"data: {file} is not as ADE20K has it: {which}")
    return names


def _is_ade(root: Path, names: Sequence[str]) -> bool:
    """Whether a folder is ADE20K as it unpacks."""
    return (root / ADE_OBJECTS).is_file() or (
        len(names) == ADE_CLASSES and (root / IMAGES / "training").is_dir()
    )
