"""Looks at every image of a dataset, and tells what is wrong with it."""

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple, Protocol, TypeVar

from PIL import Image
from torch.utils.data import DataLoader, Dataset

from v2m.data.classes.dataset import EncodedImages, LabelledImages
from v2m.data.depth import find_depth, is_deep
from v2m.data.errors import DecompressionBombError, UnreadableImageError
from v2m.data.images import load_pixels, opened_image
from v2m.system.errors import shown
from v2m.system.files import replace_file
from v2m.system.open_files import reserve_files

KINDS = {
    "unreadable": "cannot be decoded",
    "bomb": "has more pixels than PIL allows",
    "leak": "has the pixels of an image of another split",
    "conflict": "has the pixels of an image of another class",
    "duplicate": "has the pixels of another image of its split",
    "missing image": "is in the annotations, but not in the folder",
    "missing mask": "image without a mask",
    "size": "has another size than its annotations or its mask",
    "annotation": "annotation that cannot be used, and is left out",
    "value": "has values that are no class, unless --input.label_map makes them one",
    "left-over image": "is in the folder, but not in the annotations",
    "left-over mask": "mask without an image",
    "same name": "has the name of another file but for its suffix, so that pairs are not known",
    "names": "names in the annotations that were taken for others",
    "doubtful": "annotations that can hardly be meant as they are",
    "beyond": "box that reaches beyond its image, and is cut",
    "hidden": "has its contents in the transparency, which is not read",
    "turned": "is turned by its EXIF orientation",
    "range": "is read in another range of gray than most images",
    "huge": "has so many pixels that PIL warns of it",
    "tiny": "has a side of very few pixels",
    "unknown class": "class of this split that the training images lack",
    "empty class": "class without images, objects or pixels in this split",
}
"""What a problem can be, the worst first."""
SERIOUS = (
    *("unreadable", "bomb", "leak", "unknown class"),
    *("missing image", "missing mask", "size", "annotation", "value", "left-over mask", "same name"),
)
PLAIN = ("gray", "colour", "alpha")
"""Modes of 8 bits a channel."""
CHUNK = 32

S = TypeVar("S", bound="Seen")
T = TypeVar("T")


class Facts(NamedTuple):
    """What is seen of one image.

    Attributes:
        size: Width and height.
        mode: ``gray``, ``colour`` or ``alpha``, or what more than 8 bits of gray count; empty if the image
            cannot be read.
        digest: The same for images of the same pixels.
        kind: ``unreadable``, ``bomb`` or ``hidden``, or empty.
        detail: Why.
    """

    size: tuple[int, int]
    mode: str
    digest: bytes
    kind: str = ""
    detail: str = ""


class Named(Protocol):
    """A dataset whose images have names."""

    def name(self, index: int) -> str:
        """Where an image is."""


class Seen(Protocol):
    """A split with the facts of all its images, in order."""

    @property
    def name(self) -> str:
        """What it is called."""

    @property
    def data(self) -> Named:
        """The images."""

    @property
    def facts(self) -> Sequence[Facts]:
        """What is seen of them."""


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
        counts: Images of every class, or what else is counted.
        widths: Smallest, median and largest, of the readable images; empty if there are none.
        heights: Likewise.
        modes: Number of images of each mode, the most frequent first.
    """

    counts: dict[str, int]
    widths: tuple[int, ...]
    heights: tuple[int, ...]
    modes: dict[str, int]


class _Inspected(Dataset[Any]):
    """What is seen of images instead of the images."""

    def __init__(self, inspect: Callable[[int], Any], count: int) -> None:
        self._inspect, self._count = inspect, count

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: int) -> Any:
        return self._inspect(index)


def inspect_images(data: LabelledImages, workers: int) -> Iterator[Facts]:
    """The facts of every image, in order.

    Args:
        data: One split.
        workers: Processes that decode images; 0 for this one.
    """
    return inspect_all(partial(inspect_image, data), len(data), workers)


def inspect_all(inspect: Callable[[int], T], count: int, workers: int) -> Iterator[T]:
    """What a function sees of every image, by number, in order.

    Args:
        inspect: The function.
        count: Number of images.
        workers: Processes that decode images; 0 for this one.
    """
    reserve_files(workers)
    chunks: DataLoader[Any] = DataLoader(
        _Inspected(inspect, count), CHUNK, num_workers=workers, collate_fn=list
    )
    for chunk in chunks:
        yield from chunk


def inspect_image(data: LabelledImages, index: int) -> Facts:
    """Decode an image and say what it is."""
    try:
        if not isinstance(data, EncodedImages):
            image = data.read(index)
            return Facts(image.size, _mode(image), _digest(image))
        with opened_image(data.file(index), data.name(index)) as image:
            return inspect_opened(image)
    except UnreadableImageError as error:
        return unreadable(error)


def inspect_opened(image: Image.Image) -> Facts:
    """Decode an image that is open, and say what it is."""
    pixels = load_pixels(image)
    hidden = ("hidden", "one colour, without its transparency") if _is_hidden(pixels) else ()
    return Facts(pixels.size, _mode(image), _digest(pixels), *hidden)


def unreadable(error: UnreadableImageError) -> Facts:
    """The facts of an image that cannot be read."""
    kind = "bomb" if isinstance(error, DecompressionBombError) else "unreadable"
    return Facts((0, 0), "", b"", kind, error.reason)


def _mode(image: Image.Image) -> str:
    if is_deep(image):
        return find_depth(image).name
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        return "alpha"
    return "gray" if image.mode in ("1", "L") else "colour"


def _has_alpha(image: Image.Image) -> bool:
    """Whether not all is opaque."""
    return image.mode in ("RGBA", "LA", "PA") and image.getchannel("A").getextrema() != (255, 255)


def _is_hidden(image: Image.Image) -> bool:
    return _has_alpha(image) and image.convert("RGB").getcolors(1) is not None


def _digest(image: Image.Image) -> bytes:
    """Of size and colours, and of alpha where it says something: whatever mode or format they are kept in."""
    mode = "RGBA" if _has_alpha(image) else "RGB"
    header = f"{mode} {image.width} {image.height} ".encode()
    return hashlib.blake2b(header + image.convert(mode).tobytes(), digest_size=16).digest()


def find_problems(splits: Sequence[CheckedSplit], tiny: int) -> list[Problem]:
    """All problems, the worst kinds first, in the order of splits and images.

    Args:
        splits: The training images first, if there are any.
        tiny: Pixels that each side of an image should have.
    """
    problems = [problem for split in splits for problem in image_problems(split, tiny)]
    problems += _shared_pixels(splits)
    problems += _mixed_ranges(splits)
    problems += _class_problems(splits)
    return worst_first(problems)


def worst_first(problems: Sequence[Problem]) -> list[Problem]:
    """Problems in the order of ``KINDS``, otherwise as they were, each once."""
    order = list(KINDS)
    return sorted(dict.fromkeys(problems), key=lambda problem: order.index(problem.kind))


def image_problems(split: Seen, tiny: int) -> Iterator[Problem]:
    """What is wrong with the images of a split, each on its own."""
    for index, facts in enumerate(split.facts):
        width, height = facts.size
        kind, detail = facts.kind, facts.detail or f"{width}x{height} pixels"
        if not kind and Image.MAX_IMAGE_PIXELS and width * height > Image.MAX_IMAGE_PIXELS:
            kind = "huge"
        elif not kind and min(facts.size) < tiny:
            kind = "tiny"
        if kind:
            yield Problem(split.name, split.data.name(index), kind, detail)


def find_twins(splits: Sequence[S]) -> Iterator[tuple[Problem, tuple[S, int], tuple[S, int]]]:
    """Every image that is there before, with its place and that of the first one of its pixels."""
    first: dict[bytes, tuple[S, int]] = {}
    for split in splits:
        for index, facts in enumerate(split.facts):
            other, place = first.setdefault(facts.digest, (split, index)) if facts.digest else (split, index)
            if other is not split or place != index:
                kind, twin = "duplicate" if other is split else "leak", other.data.name(place)
                problem = Problem(split.name, split.data.name(index), kind, f"same as {twin}")
                yield problem, (split, index), (other, place)


def _shared_pixels(splits: Sequence[CheckedSplit]) -> Iterator[Problem]:
    for problem, own, first in find_twins(splits):
        yield problem
        label, other = (split.data.classes[split.data.targets[index]] for split, index in (own, first))
        if label != other:
            twin = first[0].data.name(first[1])
            yield Problem(problem.split, problem.image, "conflict", f"{label} here, {other} as {twin}")


def _mixed_ranges(splits: Sequence[CheckedSplit]) -> Iterator[Problem]:
    """Images of more than 8 bits whose range was found to be another than that of most such images."""
    deep = [
        (split, index, facts.mode)
        for split in splits
        for index, facts in enumerate(split.facts)
        if facts.mode not in ("", *PLAIN)
    ]
    (usual, _), *others = Counter(mode for *_, mode in deep).most_common() or [("", 0)]
    if others:
        for split, index, mode in deep:
            if mode != usual:
                yield Problem(split.name, split.data.name(index), "range", f"{mode}, most {usual}")


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
    images = Counter(split.data.targets)
    counts = {name: images[target] for target, name in enumerate(split.data.classes)}
    return summarise_facts(split.facts, counts)


def summarise_facts(facts: Sequence[Facts], counts: dict[str, int]) -> Summary:
    """What is seen of images, in numbers, beside what there is of every class."""
    sizes = [fact.size for fact in facts if fact.mode]
    return Summary(
        counts=counts,
        widths=_spread([width for width, _ in sizes]),
        heights=_spread([height for _, height in sizes]),
        modes=dict(Counter(fact.mode for fact in facts if fact.mode).most_common()),
    )


def _spread(values: Sequence[int]) -> tuple[int, ...]:
    return (min(values), round(median(values)), max(values)) if values else ()


def write_problems(problems: Sequence[Problem], path: Path) -> None:
    """Write a line of JSON for each."""
    lines = "".join(_json_line(asdict(problem)) + "\n" for problem in problems)
    replace_file(path, lambda partial: partial.write_text(lines, encoding="utf-8"))


def _json_line(values: dict[str, Any]) -> str:
    """JSON for programs and people: letters as they are, and what is none, in a terminal, by its number."""
    text = json.dumps(values, ensure_ascii=False)
    return "".join(letter if shown(letter) == letter else json.dumps(letter)[1:-1] for letter in text)
