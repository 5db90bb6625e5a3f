"""Labels as they stand in files, which are indices or names, as indices of classes."""

from collections.abc import Callable, Sequence

from v2m.system.errors import DataError, same_name

MOST_UNLISTED = 2**16
"""Classes that indices may count without a list of their names, even where there are fewer images."""


def index_labels(
    labels: Sequence[int | str], names: Sequence[str] | None, where: Callable[[int], str]
) -> tuple[list[str], list[int]]:
    """Classes and targets from labels that are indices or names.

    Args:
        labels: The label of every image; indices are of ``names``.
        names: The list of classes; None to take the indices, or the sorted names that there are.
        where: Function of an image's index that says where it is, for errors.

    Returns:
        The names of the classes, and the index of every image's class.

    Raises:
        DataError: a label is not one of the classes.
    """
    labels = [same_name(label) if isinstance(label, str) else label for label in labels]
    if names is None:
        found = set(labels)
        numbers = {label for label in found if isinstance(label, int)}
        # One damaged index must not make a list of billions of classes.
        if numbers and (highest := max(numbers)) >= (most := max(MOST_UNLISTED, len(labels))):
            raise DataError(
                f"data: {where(labels.index(highest))} has label {highest}, expected one below {most:,}; "
                "where there are more classes than that and images, list them in classes.txt"
            )
        if found == numbers:
            names = [str(number) for number in range(max(numbers) + 1)]
        else:  # indices among names are names that happen to be digits
            names = sorted(map(str, found))
            labels = [str(label) for label in labels]
    target_of = {same_name(name): target for target, name in enumerate(names)}
    targets = []
    for index, label in enumerate(labels):
        target = label if isinstance(label, int) else target_of.get(label, -1)
        if not 0 <= target < len(names):
            raise DataError(f"data: {where(index)} has label {label!r}, expected one of {len(names)} classes")
        targets.append(target)
    return list(names), targets
