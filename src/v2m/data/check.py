"""Looks at every image of a dataset, and tells what is wrong with it."""

import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

from PIL import Image
from torch.utils.data import DataLoader, Dataset

from v2m.data.dataset import EncodedImages, LabelledImages
from v2m.data.errors import DecompressionBombError, UnreadableImageError
from v2m.data.files import replace_file
from v2m.data.images import load_pixels, opened_image
from v2m.data.open_files import reserve_files

KINDS = {
    "unreadable": "cannot be decoded",
    "bomb": "has more pixels than PIL allows",
    "leak": "has the pixels of an image of another split",
    "conflict": "has the pixels of an image of another class",
    "duplicate": "has the pixels of another image of its split",
    "huge": "has so many pixels that PIL warns of it",
    "tiny": "has a side of very few pixels",
    "unknown class": "class of this split that the training images lack",
    "empty class": "class without images in this split",
}
"""What a problem can be, the worst first."""
SERIOUS = ("unreadable", "bomb", "leak", "unknown class")
CHUNK = 32


class Facts(NamedTuple):
    """What is seen of one image.

    Attributes:
        size: Width and height.
        mode: ``gray``, ``colour``, ``alpha`` or ``16 bit``; empty if the image cannot be read.
        digest: The same for images of the same pixels.
        kind: ``unreadable`` or ``bomb``, or empty.
        detail: Why.
    """

    size: tuple[int, int]
    mode: str
    digest: bytes
    kind: str = ""
    detail: str = ""


@dataclass(frozen=True)
class CheckedSplit:
    """A split with the facts of all its images, in order."""

    name: str
    data: LabelledImages
    facts: Sequence[Facts]


@dataclass(frozen=True)
class Problem:
    """Something wrong with an image, or with a class (``image`` is None).

    Attributes:
        split: Where.
        image: The image's name.
        kind: A key of ``KINDS``.
        detail: The reason, the other image, or the class.
    """

    split: str
    image: str | None
    kind: str
    detail: str


@dataclass(frozen=True)
class Summary:
    """A split in numbers.

    Attributes:
        counts: Images of every class.
        widths: Smallest, median and largest, of the readable images; empty if there are none.
        heights: Likewise.
        modes: Number of images of each mode, the most frequent first.
    """

    counts: dict[str, int]
    widths: tuple[int, ...]
    heights: tuple[int, ...]
    modes: dict[str, int]


class _Inspected(Dataset[Facts]):
    """The facts instead of the images."""

    def __init__(self, data: LabelledImages) -> None:
        self._data = data

    def __len__(self) -> int:
        return len(self._data)

    def __getitem__(self, index: int) -> Facts:
        return inspect_image(self._data, index)


def inspect_images(data: LabelledImages, workers: int) -> Iterator[Facts]:
    """The facts of every image, in order.

    Args:
        data: One split.
        workers: Processes that decode images; 0 for this one.
    """
    reserve_files(workers)
    chunks: DataLoader[Any] = DataLoader(_Inspected(data), CHUNK, num_workers=workers, collate_fn=list)
    for chunk in chunks:
        yield from chunk


def inspect_image(data: LabelledImages, index: int) -> Facts:
    """Decode an image and say what it is."""
    try:
        if not isinstance(data, EncodedImages):
            image = data.read(index)
            return Facts(image.size, _mode(image), _digest(image))
        with opened_image(data.file(index), data.name(index)) as image:
            return Facts(image.size, _mode(image), _digest(load_pixels(image)))
    except UnreadableImageError as error:
        kind = "bomb" if isinstance(error, DecompressionBombError) else "unreadable"
        return Facts((0, 0), "", b"", kind, error.reason)


def _mode(image: Image.Image) -> str:
    if image.mode.startswith("I"):
        return "16 bit"
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        return "alpha"
    return "gray" if image.mode in ("1", "L") else "colour"


def _digest(image: Image.Image) -> bytes:
    """Of size and colours, and of alpha where it says something: whatever mode or format they are kept in."""
    has_alpha = image.mode in ("RGBA", "LA", "PA") and image.getchannel("A").getextrema() != (255, 255)
    mode = "RGBA" if has_alpha else "RGB"
    header = f"{mode} {image.width} {image.height} ".encode()
    return hashlib.blake2b(header + image.convert(mode).tobytes(), digest_size=16).digest()


def find_problems(splits: Sequence[CheckedSplit], tiny: int) -> list[Problem]:
    """All problems, the worst kinds first, in the order of splits and images.

    Args:
        splits: The training images first, if there are any.
        tiny: Pixels that each side of an image should have.
    """
    problems = [problem for split in splits for problem in _image_problems(split, tiny)]
    problems += _shared_pixels(splits)
    problems += _class_problems(splits)
    order = list(KINDS)
    return sorted(problems, key=lambda problem: order.index(problem.kind))


def _image_problems(split: CheckedSplit, tiny: int) -> Iterator[Problem]:
    for index, facts in enumerate(split.facts):
        width, height = facts.size
        kind, detail = facts.kind, facts.detail or f"{width}x{height} pixels"
        if not kind and Image.MAX_IMAGE_PIXELS and width * height > Image.MAX_IMAGE_PIXELS:
            kind = "huge"
        elif not kind and min(facts.size) < tiny:
            kind = "tiny"
        if kind:
            yield Problem(split.name, split.data.name(index), kind, detail)


def _shared_pixels(splits: Sequence[CheckedSplit]) -> Iterator[Problem]:
    """Every image that is there before, compared with the first one of its pixels."""
    first: dict[bytes, tuple[CheckedSplit, int]] = {}
    for split in splits:
        for index, facts in enumerate(split.facts):
            if not facts.digest:
                continue
            other, place = first.setdefault(facts.digest, (split, index))
            if (other, place) == (split, index):
                continue
            name, twin = split.data.name(index), other.data.name(place)
            label, others = (s.data.classes[s.data.targets[i]] for s, i in ((split, index), (other, place)))
            yield Problem(split.name, name, "duplicate" if other is split else "leak", f"same as {twin}")
            if label != others:
                yield Problem(split.name, name, "conflict", f"{label} here, {others} as {twin}")


def _class_problems(splits: Sequence[CheckedSplit]) -> Iterator[Problem]:
    known = splits[0].data.classes
    for split in splits:
        data = split.data
        for name in dict.fromkeys([*data.empty_classes(), *(n for n in known if n not in data.classes)]):
            yield Problem(split.name, None, "empty class", name)
        for name in data.classes:
            if name not in known:
                yield Problem(split.name, None, "unknown class", name)


def summarise(split: CheckedSplit) -> Summary:
    """A split in numbers."""
    data = split.data
    images = Counter(data.targets)
    sizes = [facts.size for facts in split.facts if facts.mode]
    return Summary(
        counts={name: images[target] for target, name in enumerate(data.classes)},
        widths=_spread([width for width, _ in sizes]),
        heights=_spread([height for _, height in sizes]),
        modes=dict(Counter(facts.mode for facts in split.facts if facts.mode).most_common()),
    )


def _spread(values: Sequence[int]) -> tuple[int, ...]:
    return (min(values), round(median(values)), max(values)) if values else ()


def write_problems(problems: Sequence[Problem], path: Path) -> None:
    """Write a line of JSON for each."""
    lines = "".join(json.dumps(asdict(problem), ensure_ascii=False) + "\n" for problem in problems)
    text = lines.encode("utf-8", "backslashreplace")  # file names may be no text; \\udc.. is JSON, too
    replace_file(path, lambda partial: partial.write_bytes(text))
