"""Splits of a folder in COCO format: finding and opening them, and whether there is anything to learn."""

import re
from collections.abc import Sequence
from pathlib import Path

from v2m.data.coco.dataset import CocoImages
from v2m.data.layouts import BESIDE_IMAGES
from v2m.data.named import check_task
from v2m.data.splits import SPLITS, Split, split_names
from v2m.system.errors import DataError, few

FEW_IMAGES = 0.1
"""Share of the images that have objects in a set that has hardly any."""


def open_coco(
    source: str,
    split: Split,
    classes: Sequence[str] | None = None,
    masks: bool = True,
    strict: bool = False,
    *,
    allow_outside: bool = False,
) -> CocoImages:
    """Open one split of a folder with annotations in COCO format.

    Args:
        source: Folder with ``annotations/instances_<split>*.json`` and images in ``<split>*`` or
            ``images/<split>*``; or with ``<split>/_annotations.coco.json`` beside the images.
        split: ``"train"`` or ``"val"`` (or what it is called there: validation, valid or test).
        classes: The classes that labels count in; by default the categories in order of their ids.
        masks: Whether masks are used, if the annotations have some; if not, they are not looked at.
        strict: Whether an annotation that cannot be used is an error, instead of being left out.
        allow_outside: Whether images may be outside of the folder, where their names lead there.

    Raises:
        DataError: the split is missing or damaged, has other classes, or has no object to train on.
    """
    check_task(source, "detection")
    annotations, folder = find_annotations(Path(source), split)
    data = CocoImages(annotations, folder, classes, masks, strict, allow_outside=allow_outside)
    if split == "train":
        data.warnings += _check_learnable(data)
    return data


def _check_learnable(data: CocoImages) -> list[str]:
    """What little there is to learn, in a line each.

    Raises:
        DataError: there is nothing.
    """
    # Nothing to learn at all is an error, with whatever was left out as the likely reason.
    counts, crowds = data.count_by_class(), sum(data.count_by_class(crowds=True))
    objects, images = sum(counts), data.count_images_with_objects()
    if not objects:
        reasons = [f"{crowds:,} are crowds (iscrowd 1), which are not trained on; one object has iscrowd 0"]
        left_out = [line.removeprefix(f"{data.source}: ") for line in data.warnings if data.faults]
        found = "; ".join([*(reasons if crowds else []), *left_out])
        raise DataError(f"data: {data.source} has no objects to train on{': ' if found else ''}{found}")
    # Little to learn is a warning.
    lines = []
    if crowds > objects:
        lines.append(
            f"{data.source}: {crowds:,} of {crowds + objects:,} objects are crowds (iscrowd 1), which are "
            "not trained on; one object has iscrowd 0"
        )
    if images < FEW_IMAGES * len(data):
        lines.append(
            f"{data.source}: {images:,} of {len(data):,} images have objects, the others are background"
        )
    empty = [name for name, count in zip(data.classes, counts, strict=True) if not count]
    if empty:
        lines.append(
            f"{data.source}: {len(empty):,} of {len(counts):,} classes have no object to train on, and will "
            f"not be found: {few(empty)}; add some, or take the categories out of all files"
        )
    return lines


def find_annotations(root: Path, split: Split) -> tuple[Path, Path]:
    """The annotations of a split and the folder of its images.

    Args:
        root: Folder with ``annotations/instances_<split>*.json`` and the images in ``<split>*`` or
            ``images/<split>*``; or with ``<split>/_annotations.coco.json`` beside the images.
        split: ``"train"`` or ``"val"`` (or what it is called there: validation, valid or test).

    Raises:
        DataError: there are none, or several, or no folder of images.
    """
    if not root.is_dir():
        raise DataError(f"data: {root} is not a folder")
    names = split_names(split)
    found = next(filter(None, (_find_split(root, name) for name in names)), None)
    if found:
        return found
    looked = f"annotations/instances_{split}*.json nor {split}/{BESIDE_IMAGES}"
    others = f" (nor those of {', '.join(names[1:])})" if names[1:] else ""
    raise DataError(f"data: {root} has neither {looked}{others}")


def find_all_annotations(root: Path) -> dict[str, tuple[Path, Path]]:
    """The annotations of every split that there is, and the folder of its images.

    Raises:
        DataError: there are several of one split, or no folder of images.
    """
    found = {name: _find_split(root, name) for name in SPLITS}
    return {name: paths for name, paths in found.items() if paths}


def _find_split(root: Path, name: str) -> tuple[Path, Path] | None:
    pattern = re.compile(rf"instances_({name}(?![a-z]).*)\.json")
    files = sorted(path for path in root.glob("annotations/*.json") if pattern.fullmatch(path.name))
    if len(files) > 1:
        found = few([path.name for path in files])
        raise DataError(f"data: {root / 'annotations'} has {found}, expected one file of {name}")
    if files:  # COCO's own layout: instances_train2017.json goes with train2017/
        folder = files[0].stem.removeprefix("instances_")
        return files[0], _image_folder(files[0], [root / "images" / folder, root / folder])
    beside = root / name / BESIDE_IMAGES
    return (beside, root / name) if beside.is_file() else None


def _image_folder(annotations: Path, folders: Sequence[Path]) -> Path:
    found = next((folder for folder in folders if folder.is_dir()), None)
    if found is None:
        looked = " nor ".join(f"{folder}/" for folder in folders)
        raise DataError(f"data: {annotations} has no images, expected in {looked}")
    return found
