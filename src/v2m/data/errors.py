"""What can be wrong with data."""

from typing import Any


class DataError(ValueError):
    """Data that cannot be used; the message says which and why, in one line."""


class UnreadableImageError(DataError):
    """One image of a dataset, or one file, cannot be read.

    Attributes:
        name: Where the image is.
        reason: What is wrong with it.
    """

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(f"{name}: not a readable image ({reason})")
        self.name, self.reason = name, reason

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.name, self.reason)
