"""What can be wrong with images and classes of any dataset, and how it is told."""

import json
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any, Protocol, TypeVar

from PIL import Image

from v2m.data.check.facts import Facts
from v2m.system.errors import shown
from v2m.system.files import replace_file

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
SERIOUS = frozenset(
    (
        "unreadable",
        "bomb",
        "leak",
        "unknown class",
        "missing image",
        "missing mask",
        "size",
        "annotation",
        "value",
        "left-over mask",
        "same name",
    )
)
"""What training would stumble over, or what makes scores worthless."""

S = TypeVar("S", bound="Seen")


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


def worst_first(problems: Sequence[Problem]) -> list[Problem]:
    """Problems in the order of ``KINDS``, otherwise as they were, each once."""
    order = list(KINDS)
    return sorted(dict.fromkeys(problems), key=lambda problem: order.index(problem.kind))


def image_problems(split: Seen, tiny: int) -> Iterator[Problem]:
    """What is wrong with the images of a split, each on its own."""
    for index, facts in enumerate(split.facts):
        width, height = facts.size
        # One problem for each image: what was found as it was decoded comes before its size.
        kind, detail = facts.kind, facts.detail or f"{width}x{height} pixels"
        if not kind and Image.MAX_IMAGE_PIXELS and width * height > Image.MAX_IMAGE_PIXELS:
            kind = "huge"
        elif not kind and min(facts.size) < tiny:
            kind = "tiny"
        if kind:
            yield Problem(split.name, split.data.name(index), kind, detail)


def class_problems(split: str, counts: Mapping[str, int], known: Collection[str]) -> Iterator[Problem]:
    """Classes without anything in a split, and those that the training images lack.

    Args:
        split: The name of the split.
        counts: Images, objects or pixels of each of its classes.
        known: Names of the classes of the training images.
    """
    for name in dict.fromkeys([*counts, *known]):
        if not counts.get(name):
            yield Problem(split, None, "empty class", name)
        if name not in known:
            yield Problem(split, None, "unknown class", name)


def find_twins(splits: Sequence[S]) -> Iterator[tuple[Problem, tuple[S, int], tuple[S, int]]]:
    """Every image whose pixels were there before: the problem, the image, and the first one of its pixels."""
    # By the digest of its pixels, the first image that has them: in the first split that does.
    first: dict[bytes, tuple[S, int]] = {}
    for split in splits:
        for index, facts in enumerate(split.facts):
            if not facts.digest:  # it cannot be read
                continue
            other, twin = first.setdefault(facts.digest, (split, index))
            if other is split and twin == index:  # the first of its pixels
                continue
            kind = "duplicate" if other is split else "leak"
            detail = f"same as {other.data.name(twin)}"
            yield Problem(split.name, split.data.name(index), kind, detail), (split, index), (other, twin)


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
