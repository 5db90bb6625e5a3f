import pytest
import torch

from v2m.layers import Directions
from v2m.layers.directions import DOWN, LEFT, RIGHT, UP, Path, Scan

CORNER = {
    frozenset({RIGHT, DOWN}): "top left",
    frozenset({LEFT, DOWN}): "top right",
    frozenset({RIGHT, UP}): "bottom left",
    frozenset({LEFT, UP}): "bottom right",
}


def corners(directions):
    return [CORNER[frozenset({path.first, path.second})] for path in directions.paths]


def test_scans_are_named_by_where_they_go():
    assert Scan("row", reverse=False) == RIGHT
    assert Scan("row", reverse=True) == LEFT
    assert Scan("col", reverse=False) == DOWN
    assert Scan("col", reverse=True) == UP


@pytest.mark.parametrize(
    ("name", "paths"),
    [
        ("corners", 4),
        ("corners_rows_first", 4),
        ("opposite_corners", 2),
        ("one_corner", 1),
        ("released", 4),
    ],
)
def test_found_by_name(name, paths):
    assert Directions(name).value == name
    assert Directions(name) == name
    assert len(Directions(name).paths) == paths


def test_fewer_corners_are_the_first_ones():
    assert corners(Directions.ONE_CORNER) == ["top left"]
    assert corners(Directions.OPPOSITE_CORNERS) == ["top left", "bottom right"]
    assert set(Directions.OPPOSITE_CORNERS.paths) < set(Directions.CORNERS.paths)


def test_unknown_name():
    with pytest.raises(ValueError, match="diagonal"):
        Directions("diagonal")


@pytest.mark.parametrize("directions", [Directions.CORNERS, Directions.CORNERS_ROWS_FIRST])
def test_every_corner_once_and_in_place(directions):
    assert sorted(corners(directions)) == sorted(CORNER.values())
    marks = torch.arange(12.0).view(1, 3, 4, 1)
    assert all(torch.equal(path.place(marks), marks) for path in directions.paths)


def test_released_starts_twice_from_the_top_left_and_never_from_the_bottom_right():
    assert sorted(corners(Directions.RELEASED)) == ["bottom left", "top left", "top left", "top right"]


@pytest.mark.parametrize(
    ("directions", "first_passes"),
    [(Directions.CORNERS, 4), (Directions.CORNERS_ROWS_FIRST, 2), (Directions.RELEASED, 4)],
)
def test_number_of_different_first_passes(directions, first_passes):
    assert len({path.first for path in directions.paths}) == first_passes
    assert len({(path.first, path.second) for path in directions.paths}) == 4


@pytest.mark.parametrize("directions", Directions)
def test_passes_run_along_different_axes(directions):
    assert all(path.first.axis != path.second.axis for path in directions.paths)


@pytest.mark.parametrize(
    ("transpose", "quarter_turns", "expected"),
    [
        (False, 0, [[1, 2], [3, 4]]),
        (True, 0, [[1, 3], [2, 4]]),
        (False, 1, [[2, 4], [1, 3]]),
        (False, 3, [[3, 1], [4, 2]]),
        (True, 1, [[3, 4], [1, 2]]),
    ],
)
def test_place_worked_by_hand(transpose, quarter_turns, expected):
    y = torch.tensor([[1, 2], [3, 4]]).view(1, 2, 2, 1).expand(2, 2, 2, 3)
    placed = Path(RIGHT, DOWN, transpose, quarter_turns).place(y)
    assert torch.equal(placed, torch.tensor(expected).view(1, 2, 2, 1).expand(2, 2, 2, 3))


def test_released_puts_few_results_back_where_they_came_from():
    marks = torch.arange(36).view(1, 6, 6, 1)
    right = [int((path.place(marks) == marks).sum()) for path in Directions.RELEASED.paths]
    assert right == [6, 6, 0, 0]
