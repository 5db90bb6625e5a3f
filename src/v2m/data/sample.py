"""Some of many images, to look at where looking at all would take long."""

from collections.abc import Iterator


def sample(count: int, most: int) -> list[int]:
    """Numbers below ``count`` in even steps: ``most`` of them, or all where there are no more than that.

    Images often come in order of their classes or of time, so the first ones would say little of the others.
    """
    return [step * count // most for step in range(most)] if count > most else list(range(count))


def sample_first(count: int, most: int) -> Iterator[int]:
    """All numbers below ``count``: those of a ``sample``, then the others in order."""
    first = sample(count, most)
    yield from first
    yield from sorted(set(range(count)).difference(first))
