"""What can be wrong with one image of a dataset."""

from typing import Any, ClassVar

from v2m.system.errors import DataError


class UnreadableImageError(DataError):
    """One image of a dataset, or one file, cannot be read.

    Attributes:
        name: Where the image is.
        reason: What is wrong with it; empty where PyTorch made a worker's error anew, from its text.
    """

    problem: ClassVar[str] = "not a readable image"

    def __init__(self, name: str, reason: str = "") -> None:
        super().__init__(f"{name}: {self.problem} ({reason})" if reason else name)
        self.name, self.reason = name, reason

    def __reduce__(self) -> tuple[Any, ...]:
        # An error from a worker process is made again from these, and not from the message alone.
        return type(self), (self.name, self.reason)


class TransformError(UnreadableImageError):
    """One image that was read, but that its transform fails on."""

    problem = "cannot be prepared"


class DecompressionBombError(UnreadableImageError):
    """An image that would have more pixels than PIL allows."""
