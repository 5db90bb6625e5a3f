import pytest

from v2m.data.sample import sample, sample_first


@pytest.mark.parametrize(
    ("count", "most", "expected"),
    [(0, 3, []), (2, 3, [0, 1]), (3, 3, [0, 1, 2]), (4, 3, [0, 1, 2]), (10, 3, [0, 3, 6]), (100, 1, [0])],
)
def test_a_sample_is_in_even_steps(count, most, expected):
    assert sample(count, most) == expected


def test_the_others_come_after_the_sample():
    assert list(sample_first(7, 3)) == [0, 2, 4, 1, 3, 5, 6]
    assert list(sample_first(2, 3)) == [0, 1]
