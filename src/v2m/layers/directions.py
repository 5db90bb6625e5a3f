"""The orders in which a mixer walks the grid.

A path is two scans, the second along the other axis. Instead of turning the map so that a path's first scan
runs along rows from the left, a path names the axis and the sense of each scan; nothing is flipped or copied.
"""

from enum import Enum
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor

from v2m.ops import Axis


class Scan(NamedTuple):
    """One scan over the whole map: along ``axis``, from the end of each line if ``reverse``."""

    axis: Axis
    reverse: bool


class Path(NamedTuple):
    """A first and a second scan, and where the result is put.

    ``transpose`` and then ``quarter_turns`` (counter-clockwise) move the result; they are the identity except
    in the released code.
    """

    first: Scan
    second: Scan
    transpose: bool = False
    quarter_turns: int = 0

    def place(self, y: Tensor) -> Tensor:
        """Move a result ``[B, H, W, D]`` to where this path adds it."""
        if self.transpose:
            y = y.transpose(1, 2)
        return torch.rot90(y, self.quarter_turns, (1, 2)) if self.quarter_turns else y


RIGHT, LEFT = Scan("row", reverse=False), Scan("row", reverse=True)
DOWN, UP = Scan("col", reverse=False), Scan("col", reverse=True)


class Directions(str, Enum):
    """Which paths a mixer sums."""

    CORNERS = "corners"
    """The paper: the map turned by 0, 1, 2 and 3 quarters, rows then columns, turned back."""

    CORNERS_ROWS_FIRST = "corners_rows_first"
    """All four corners by flips, rows always first: 2 row passes and 4 column passes instead of 4 and 4."""

    OPPOSITE_CORNERS = "opposite_corners"
    """The first and third of the paper's corners: top left and bottom right."""

    ONE_CORNER = "one_corner"
    """The first of the paper's corners, the top left."""

    RELEASED = "released"
    """The authors' code: the top-left corner twice, the bottom-right never, results out of place."""

    @property
    def paths(self) -> tuple[Path, ...]:
        """The paths that are summed."""
        return _PATHS[self]


_PATHS = {
    Directions.CORNERS: (Path(RIGHT, DOWN), Path(DOWN, LEFT), Path(LEFT, UP), Path(UP, RIGHT)),
    Directions.CORNERS_ROWS_FIRST: (Path(RIGHT, DOWN), Path(LEFT, DOWN), Path(RIGHT, UP), Path(LEFT, UP)),
    Directions.OPPOSITE_CORNERS: (Path(RIGHT, DOWN), Path(LEFT, UP)),
    Directions.ONE_CORNER: (Path(RIGHT, DOWN),),
    # Not four corners: these have the numbers of the released code, which its trained weights need.
    Directions.RELEASED: (
        Path(RIGHT, DOWN, transpose=True),
        Path(DOWN, RIGHT, transpose=True),
        Path(LEFT, DOWN, quarter_turns=3),
        Path(UP, RIGHT, quarter_turns=1),
    ),
}

Choice = TypeVar("Choice", bound=Enum)


def choose(owner: str, name: str, value: Choice | str, choices: type[Choice]) -> Choice:
    """The member of an enumeration that an argument names.

    Raises:
        ValueError: there is none of that name.
    """
    try:
        return choices(value)
    except ValueError:
        names = ", ".join(repr(choice.value) for choice in choices)
        raise ValueError(f"{owner}: {name} is {value!r}, expected one of {names}") from None
