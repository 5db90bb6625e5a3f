"""Files in COCO format: where they are in a folder, and reading them."""

import gc
import json
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from v2m.data.datasets import VAL_SPLITS
from v2m.data.errors import DataError, few
from v2m.data.named import Split

BESIDE_IMAGES = "_annotations.coco.json"

Record = dict[str, Any]

FIELDS: dict[str, dict[str, type]] = dict(
    images=dict(id=int, file_name=str, height=int, width=int),
    categories=dict(id=int, name=str),
    annotations=dict(id=int, image_id=int, category_id=int, bbox=list),
)
WORDS = {int: "a whole number", str: "text", list: "a list"}


class Records(NamedTuple):
    """A file of annotations, of which ``FIELDS`` are there and of their types, and ids are there once.

    Attributes:
        path: The file.
        images: As in the file.
        categories: Likewise.
        annotations: Likewise.
    """

    path: Path
    images: list[Record]
    categories: list[Record]
    annotations: list[Record]


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
    names = ("train",) if split == "train" else VAL_SPLITS
    for name in names:
        pattern = re.compile(rf"instances_({name}(?![a-z]).*)\.json")
        files = sorted(path for path in root.glob("annotations/*.json") if pattern.fullmatch(path.name))
        if len(files) > 1:
            found = few([path.name for path in files])
            raise DataError(f"data: {root / 'annotations'} has {found}, expected one file of {name}")
        if files:
            folder = files[0].stem.removeprefix("instances_")
            return files[0], _image_folder(files[0], [root / "images" / folder, root / folder])
        if (root / name / BESIDE_IMAGES).is_file():
            return root / name / BESIDE_IMAGES, root / name
    looked = f"annotations/instances_{split}*.json nor {split}/{BESIDE_IMAGES}"
    others = f" (nor those of {', '.join(names[1:])})" if names[1:] else ""
    raise DataError(f"data: {root} has neither {looked}{others}")


def _image_folder(annotations: Path, folders: Sequence[Path]) -> Path:
    found = next((folder for folder in folders if folder.is_dir()), None)
    if found is None:
        looked = " nor ".join(f"{folder}/" for folder in folders)
        raise DataError(f"data: {annotations} has no images, expected in {looked}")
    return found


def read_records(path: Path) -> Records:
    """Read annotations.

    Raises:
        DataError: the file is damaged, or misses something.
    """
    try:
        with _no_collection():
            content = json.loads(path.read_bytes())
    except json.JSONDecodeError as error:
        raise DataError(f"data: {path} is damaged in line {error.lineno} ({error.msg})") from None
    except (UnicodeDecodeError, RecursionError) as error:
        raise DataError(f"data: {path} is damaged ({error})") from None
    for kind in FIELDS:
        if not isinstance(content, dict) or not isinstance(content.get(kind), list):
            raise DataError(f"data: {path} has no list of {kind}, expected annotations in COCO format")
    records = Records(path, *(content[kind] for kind in Records._fields[1:]))
    if not records.images:
        raise DataError(f"data: {path} has no images")
    for kind, fields in FIELDS.items():
        _check_fields(path, kind, content[kind], fields)
    empty = next((image for image in records.images if min(image["height"], image["width"]) < 1), None)
    if empty:
        size = f"height {empty['height']} and width {empty['width']}"
        raise DataError(f"data: {path}: image {empty['id']} has {size}, expected at least 1")
    _check_twice(path, "category names", [category["name"] for category in records.categories])
    return records


@contextmanager
def _no_collection() -> Iterator[None]:
    """Spare the garbage collector the millions of lists that are being made: a third of the time."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def _check_fields(path: Path, kind: str, records: Sequence[Any], fields: dict[str, type]) -> None:
    for place, record in enumerate(records):
        if not isinstance(record, dict):
            raise DataError(
                f"data: {path}: {kind} hold {str(record)[:40]!r}, expected objects with {few([*fields])}"
            )
        for field, type_ in fields.items():
            value = record.get(field)
            if not isinstance(value, type_):
                found = f"{field} {str(value)[:40]!r}" if field in record else f"no {field}"
                which = f"id {record['id']}" if isinstance(record.get("id"), int) else f"number {place + 1}"
                raise DataError(f"data: {path}: {kind} {which} has {found}, expected {WORDS[type_]}")
    _check_twice(path, f"ids of {kind}", [record["id"] for record in records])


def _check_twice(path: Path, what: str, values: Sequence[Any]) -> None:
    if len(set(values)) < len(values):
        twice = [str(value) for value, count in Counter(values).items() if count > 1]
        raise DataError(f"data: {path} has {what} twice: {few(twice)}")
