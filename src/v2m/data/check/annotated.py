"""What checks of objects and of masks have in common: splits of images with annotations."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from v2m.data.check.facts import Facts, inspect_opened, unreadable
from v2m.data.check.problems import (
    Named,
    Problem,
    class_problems,
    find_twins,
    image_problems,
    worst_first,
)
from v2m.data.errors import UnreadableImageError
from v2m.data.images import opened_image
from v2m.data.orientation import find_orientation


class Look(NamedTuple):
    """What is seen of one image and its annotations.

    Attributes:
        facts: Of the image.
        problems: Kind and detail of what is wrong, beyond the image on its own.
        values: How many pixels of its mask have a value, if it has a mask.
        orientation: EXIF's, 1 for an image that is stored upright.
    """

    facts: Facts
    problems: list[tuple[str, str]]
    values: dict[int, int]
    orientation: int = 1


@dataclass(frozen=True)
class AnnotatedSplit:
    """A split with what was seen of all its images, in order.

    Attributes:
        name: Its name.
        data: The images.
        looks: What was seen of them.
        counts: Objects or pixels of every class.
        numbers: What else was counted, by what it is.
        problems: What is wrong with files and annotations.
    """

    name: str
    data: Named
    looks: Sequence[Look]
    counts: dict[str, int]
    numbers: dict[str, int]
    problems: Sequence[Problem]

    @property
    def facts(self) -> Sequence[Facts]:
        """The facts of the images."""
        return [look.facts for look in self.looks]


def look_at(path: str) -> Look:
    """Decode an image file and say what it is."""
    try:
        with opened_image(path, path) as image:
            orientation = find_orientation(image)
            turned = f"orientation {orientation}, stored as {image.width}x{image.height} pixels"
            problems = [("turned", turned)] if orientation > 1 else []
            return Look(inspect_opened(image), problems, {}, orientation)
    except UnreadableImageError as error:
        return Look(unreadable(error), [], {})


def fits(look: Look, size: tuple[int, int]) -> bool:
    """Whether annotations of this width and height are of an image, as it is stored or upright."""
    is_on_its_side = look.orientation in range(5, 9)
    # Annotations may count in the stored pixels or in the upright ones.
    return size == look.facts.size or (is_on_its_side and size == look.facts.size[::-1])


def find_annotated_problems(splits: Sequence[AnnotatedSplit], tiny: int) -> list[Problem]:
    """All problems, the worst kinds first, in the order of splits and images.

    Args:
        splits: The training images first, if there are any.
        tiny: Pixels that each side of an image should have.
    """
    problems: list[Problem] = []
    for split in splits:
        problems += image_problems(split, tiny)
        problems += split.problems
        for index, look in enumerate(split.looks):
            problems += [Problem(split.name, split.data.name(index), *found) for found in look.problems]
        problems += class_problems(split.name, split.counts, splits[0].counts)
    problems += [problem for problem, *_ in find_twins(splits)]
    return worst_first(problems)
