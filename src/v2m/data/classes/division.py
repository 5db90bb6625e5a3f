"""Images that come without a validation split, divided into those to train on and those to validate on.

Every image has a number that follows from its name and the seed alone: a hash. In each class, the images with
the smallest numbers are validated on, as many as the share says. So a split does not depend on where the
images lie or in which order they are found. An image that is added later moves at most one other image of its
class to the other side. Files of the same bytes are one unit, which is never on both sides.
"""

import hashlib
import json
import os
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

from v2m.data.classes.dataset import EncodedImages, LabelledImages
from v2m.data.classes.source import Opener
from v2m.data.errors import UnreadableImageError
from v2m.data.splits import VAL_SHARE, Split
from v2m.system.errors import DataError, few, same_name
from v2m.system.files import open_file, read_json, replace_file
from v2m.system.open_files import is_limit

SPLIT_FILE = "split.json"
"""The file of a run with the images of both sides."""
MOST_BYTES = 2**29
"""The largest ``split.json`` that is read: a hundred bytes for each of five million images."""
TAIL = 2**12
"""Bytes at the end of a file that tell most files of one size apart."""


@dataclass(frozen=True)
class Division:
    """How images are divided that have no validation images.

    Attributes:
        val_share: Share of the images of each class that is validated on.
        seed: Seed of the choice.
    """

    val_share: float = VAL_SHARE
    seed: int = 0


@dataclass(frozen=True)
class Kept(Division):
    """A division that was made: the images of both sides, by their paths from the folder of the data.

    Attributes:
        data: The folder or table that was divided.
        train: Images to train on.
        val: Images to validate on.
    """

    data: str = ""
    train: list[str] = field(default_factory=list)
    val: list[str] = field(default_factory=list)

    def write(self, folder: Path) -> None:
        """Write it as ``split.json`` into a folder."""
        text = json.dumps(asdict(self), indent=1) + "\n"
        replace_file(folder / SPLIT_FILE, lambda path: path.write_text(text, encoding="utf-8"))

    def is_of(self, data: str) -> bool:
        """Whether it was made of this folder or table."""
        return self.data == os.path.realpath(data)


def read_kept(folder: Path) -> Kept | None:
    """What a run keeps of its division in its folder; None where it made none.

    Raises:
        DataError: the file is damaged.
    """
    path = folder / SPLIT_FILE
    if not path.is_file():
        return None
    values = read_json(path, MOST_BYTES)
    kinds = dict(val_share=float, seed=int, data=str, train=list, val=list)
    is_whole = isinstance(values, dict) and all(type(values.get(k)) is kind for k, kind in kinds.items())
    if not is_whole or not all(isinstance(name, str) for name in (*values["train"], *values["val"])):
        raise DataError(f"{path} is damaged, expected the images of both sides as v2m train writes them")
    return Kept(**{name: values[name] for name in kinds})


class SideImages(EncodedImages):
    """The images of one side of a division.

    Args:
        whole: All images.
        chosen: Numbers of those of this side.
        source: What they are, for messages.
        kept: The division.

    Attributes:
        kept: As given.
    """

    def __init__(self, whole: EncodedImages, chosen: Sequence[int], source: str, kept: Kept) -> None:
        super().__init__(source, whole.classes, [whole.targets[i] for i in chosen], whole.declared)
        self._whole, self._chosen, self.kept = whole, list(chosen), kept

    def name(self, index: int) -> str:
        """That of the whole."""
        return self._whole.name(self._chosen[index])

    def file(self, index: int) -> str | BinaryIO:
        """That of the whole."""
        return self._whole.file(self._chosen[index])


def divided(whole: Opener, data: str, division: Division) -> dict[str, Opener]:
    """Both splits of images that have no validation images, each as a function that opens it.

    Args:
        whole: Opens all images.
        data: The folder or table that they are of.
        division: How they are divided; ``Kept`` for the sides of before.
    """
    return {split: partial(_open_side, whole, data, division, split) for split in ("train", "val")}


def _open_side(whole: Opener, data: str, division: Division, split: Split) -> LabelledImages:
    images = whole()
    if not isinstance(images, EncodedImages):
        raise DataError(f"data: {images.source} has no validation images")
    keys = image_keys(images, data)
    kept = division if isinstance(division, Kept) else _divide(images, keys, data, division)
    side = _train_side(images, keys, kept) if split == "train" else _val_side(images, keys, kept)
    val = len(side) if split == "val" else len(images) - len(side)
    side.notes = [
        f"no validation images in {kept.data}: of {len(images):,} images of {len(images.classes):,} classes, "
        f"{len(images) - val:,} are to train on and {val:,} to validate on "
        f"(val_share {kept.val_share:g}, split_seed {kept.seed})"
    ]
    return side


def _train_side(images: EncodedImages, keys: Sequence[str], kept: Kept) -> SideImages:
    """What is not validated on. Images that were added since the division was made are among them."""
    val = set(kept.val)
    chosen = [i for i, key in enumerate(keys) if key not in val]
    if not chosen:
        raise DataError(
            f"data: {images.source} has no images to train on: all are validated on ({SPLIT_FILE})"
        )
    known = set(kept.train)
    added = [keys[i] for i in chosen if keys[i] not in known]
    gone = len(known.difference(keys))
    kept = replace(kept, train=kept.train + added)
    side = SideImages(images, chosen, f"{images.source} (to train on)", kept)
    side.warnings = list(images.warnings)
    if added:
        side.warnings.append(f"{images.source}: {_count(added)} new since the split was made, to train on")
    if gone:
        side.warnings.append(f"{images.source}: {gone:,} of {len(known):,} training images are gone")
    return side


def _val_side(images: EncodedImages, keys: Sequence[str], kept: Kept) -> SideImages:
    """The very images that were chosen, as far as they are there."""
    val = set(kept.val)
    chosen = [i for i, key in enumerate(keys) if key in val]
    gone = sorted(val.difference(keys))
    if not chosen:
        raise DataError(f"data: {images.source} has none of the images to validate on: {few(gone)}")
    side = SideImages(images, chosen, f"{images.source} (to validate on)", kept)
    if gone:
        side.warnings.append(
            f"{images.source}: {len(gone):,} of {len(val):,} validation images are gone: {few(gone)}"
        )
    return side


def image_keys(images: LabelledImages, data: str) -> list[str]:
    """The names of images, counted from the folder of the data, with slashes and in Unicode's form NFC."""
    folder = Path(data) if os.path.isdir(data) else Path(data).parent
    start = "" if folder == Path() else os.path.join(folder, "")
    names = (images.name(i) for i in range(len(images)))
    return [same_name(name.removeprefix(start)).replace(os.sep, "/") for name in names]


def _count(names: Sequence[str]) -> str:
    return f"{len(names):,} image{'s are' if len(names) > 1 else ' is'}"


def _divide(images: EncodedImages, keys: Sequence[str], data: str, division: Division) -> Kept:
    """Choose the images to validate on.

    Raises:
        DataError: no class has two different images.
    """
    val: set[int] = set()
    units = _ordered_units(images, keys, division.seed)
    counts = Counter(images.targets)
    # A half is rounded up, and each class of two images has one on either side.
    wanted = {t: max(1, min(n - 1, int(division.val_share * n + 0.5))) for t, n in counts.items()}
    taken: Counter[int] = Counter()
    for unit in units:
        classes = Counter(images.targets[i] for i in unit)
        if all(taken[t] + n <= min(wanted[t], counts[t] - 1) for t, n in classes.items()):
            taken += classes
            val.update(unit)
    # Where no unit of a class was small enough, its smallest one is taken, if others are left to train on.
    for unit in sorted(units, key=len):
        classes = Counter(images.targets[i] for i in unit)
        is_needed = any(not taken[t] for t in classes)
        if is_needed and all(taken[t] + n < counts[t] for t, n in classes.items()):
            taken += classes
            val.update(unit)
    if not val:
        raise DataError(
            f"data: {images.source} has no class with two different images, so none can be validated on; "
            "expected at least two images of each class"
        )
    sides = ([k for i, k in enumerate(keys) if (i in val) == is_val] for is_val in (False, True))
    return Kept(division.val_share, division.seed, os.path.realpath(data), *sides)


def _ordered_units(images: EncodedImages, keys: Sequence[str], seed: int) -> list[list[int]]:
    """Numbers of images in units that stay together, in the order of their hashes."""
    units: list[list[int]] = []
    for same_key in _grouped(range(len(keys)), keys.__getitem__):
        units.append(same_key)
    units = _joined(units, [group for group in _same_bytes(images) if len(group) > 1])
    ranks = [hashlib.blake2b(f"{seed}\0{key}".encode(errors="surrogateescape")).digest() for key in keys]
    return sorted(units, key=lambda unit: min((ranks[i], keys[i]) for i in unit))


def _grouped(numbers: Iterable[int], key: Callable[[int], Any]) -> list[list[int]]:
    groups: dict[Any, list[int]] = defaultdict(list)
    for number in numbers:
        groups[key(number)].append(number)
    return list(groups.values())


def _joined(units: list[list[int]], groups: list[list[int]]) -> list[list[int]]:
    """Units, where those that share a group are one."""
    unit_of = {number: unit for unit in units for number in unit}
    for first, *others in groups:
        for other in others:
            if unit_of[other] is not unit_of[first]:
                target, moved = unit_of[first], unit_of[other]
                target += moved
                unit_of.update(dict.fromkeys(moved, target))  # type: ignore[arg-type]
    return list({id(unit): unit for unit in unit_of.values()}.values())


def _same_bytes(images: EncodedImages) -> list[list[int]]:
    """Numbers of images whose files have the same bytes, grouped."""
    # Sizes tell most files apart and their ends nearly all others, so few are read whole.
    groups: list[list[int]] = [list(range(len(images)))]
    for read in (_size, _tail, _digest):
        groups = [
            found
            for group in groups
            if len(group) > 1
            for found in _grouped(group, partial(_look, images, read))
        ]
    return groups


def _look(images: EncodedImages, read: Callable[[BinaryIO], Any], index: int) -> Any:
    """What is seen of the file of an image; a file that cannot be read is like no other."""
    try:
        file = images.file(index)
        if not isinstance(file, str):
            return read(file)
        if read is _size:  # asked of the system, without opening the file
            return os.stat(file).st_size
        with open_file(file) as opened:
            return read(opened)
    except (OSError, UnreadableImageError, DataError) as error:
        if is_limit(error):
            raise
        return index, None


def _size(file: BinaryIO) -> int:
    return file.seek(0, os.SEEK_END)


def _tail(file: BinaryIO) -> bytes:
    file.seek(max(0, file.seek(0, os.SEEK_END) - TAIL))
    return hashlib.blake2b(file.read(TAIL), digest_size=16).digest()


def _digest(file: BinaryIO) -> bytes:
    digest = hashlib.blake2b(digest_size=16)
    file.seek(0)
    while block := file.read(2**20):
        digest.update(block)
    return digest.digest()
