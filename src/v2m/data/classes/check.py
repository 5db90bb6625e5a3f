"""Looks at every image of a dataset of classes, and tells what is wrong with it."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial

from v2m.data.check.facts import PLAIN, Facts, inspect_all, inspect_decoded, inspect_opened, unreadable
from v2m.data.check.problems import (
    Problem,
    Summary,
    class_problems,
    find_twins,
    image_problems,
    summarise_facts,
    worst_first,
)
from v2m.data.classes.dataset import EncodedImages, LabelledImages
from v2m.data.errors import UnreadableImageError
from v2m.data.images import opened_image


@dataclass(frozen=True)
class CheckedSplit:
    """A split with the facts of all its images, in order."""

    name: str
    data: LabelledImages
    facts: Sequence[Facts]


def inspect_images(data: LabelledImages, workers: int) -> Iterator[Facts]:
    """The facts of every image, in order.

    Args:
        data: One split.
        workers: Processes that decode images; 0 for this one.
    """
    return inspect_all(partial(_inspect_image, data), len(data), workers)


def _inspect_image(data: LabelledImages, index: int) -> Facts:
    """Decode an image and say what it is."""
    try:
        if not isinstance(data, EncodedImages):  # images in memory have no file to be damaged
            return inspect_decoded(data.read(index))
        with opened_image(data.file(index), data.name(index)) as image:
            return inspect_opened(image)
    except UnreadableImageError as error:
        return unreadable(error)


def find_problems(splits: Sequence[CheckedSplit], tiny: int) -> list[Problem]:
    """All problems, the worst kinds first, in the order of splits and images.

    Args:
        splits: The training images first, if there are any.
        tiny: Pixels that each side of an image should have.
    """
    problems = [problem for split in splits for problem in image_problems(split, tiny)]
    problems += _shared_pixels(splits)
    problems += _mixed_ranges(splits)
    for split in splits:
        problems += class_problems(split.name, count_images(split.data), splits[0].data.classes)
    return worst_first(problems)


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
    if not deep:
        return
    # A file that is dark may have been taken for one of fewer bits than the others.
    [(usual, _)] = Counter(mode for *_, mode in deep).most_common(1)
    for split, index, mode in deep:
        if mode != usual:
            yield Problem(split.name, split.data.name(index), "range", f"{mode}, most {usual}")


def summarise(split: CheckedSplit) -> Summary:
    """A split in numbers."""
    return summarise_facts(split.facts, count_images(split.data))


def count_images(data: LabelledImages) -> dict[str, int]:
    """The number of images of every class."""
    images = Counter(data.targets)
    return {name: images[target] for target, name in enumerate(data.classes)}
