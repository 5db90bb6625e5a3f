"""What is seen of one image, whatever it is labelled with."""

import hashlib
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, TypeVar

from PIL import Image
from torch.utils.data import DataLoader, Dataset

from v2m.data.depth import find_depth, is_deep
from v2m.data.errors import DecompressionBombError, UnreadableImageError
from v2m.data.images import load_pixels
from v2m.system.open_files import reserve_files
from v2m.system.workers import leave_stopping, starting_workers

PLAIN = ("gray", "colour", "alpha")
"""Modes of 8 bits a channel."""
CHUNK = 32
"""Images that a process decodes before it hands over what it saw."""

T = TypeVar("T")


class Facts(NamedTuple):
    """What is seen of one image.

    Attributes:
        size: Width and height.
        mode: ``gray``, ``colour`` or ``alpha``, or what more than 8 bits of gray count; empty if the image
            cannot be read.
        digest: The same for images of the same pixels.
        kind: ``unreadable``, ``bomb`` or ``hidden``, or empty.
        detail: Why.
    """

    size: tuple[int, int]
    mode: str
    digest: bytes
    kind: str = ""
    detail: str = ""


class _Inspected(Dataset[Any]):
    """What is seen of images instead of the images."""

    def __init__(self, inspect: Callable[[int], Any], count: int) -> None:
        self._inspect, self._count = inspect, count

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: int) -> Any:
        return self._inspect(index)


def inspect_all(inspect: Callable[[int], T], count: int, workers: int) -> Iterator[T]:
    """What a function sees of every image, by number, in order.

    Args:
        inspect: The function.
        count: Number of images.
        workers: Processes that decode images; 0 for this one.
    """
    reserve_files(workers)
    # Only facts go from process to process: pixels would take longer to hand over than to decode.
    chunks: DataLoader[Any] = DataLoader(
        _Inspected(inspect, count),
        CHUNK,
        num_workers=workers,
        collate_fn=list,
        worker_init_fn=leave_stopping,
    )
    with starting_workers():
        found = iter(chunks)
    for chunk in found:
        yield from chunk


def inspect_opened(image: Image.Image) -> Facts:
    """Decode an image that is open, and say what it is."""
    pixels = load_pixels(image)
    hidden = ("hidden", "one colour, without its transparency") if _is_hidden(pixels) else ()
    return Facts(pixels.size, _mode(image), _digest(pixels), *hidden)


def inspect_decoded(image: Image.Image) -> Facts:
    """What an image is that was in memory, and never in a file."""
    return Facts(image.size, _mode(image), _digest(image))


def unreadable(error: UnreadableImageError) -> Facts:
    """The facts of an image that cannot be read."""
    kind = "bomb" if isinstance(error, DecompressionBombError) else "unreadable"
    return Facts((0, 0), "", b"", kind, error.reason)


def _mode(image: Image.Image) -> str:
    if is_deep(image):
        return find_depth(image).name
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        return "alpha"
    return "gray" if image.mode in ("1", "L") else "colour"


def _has_alpha(image: Image.Image) -> bool:
    """Whether not all is opaque."""
    return image.mode in ("RGBA", "LA", "PA") and image.getchannel("A").getextrema() != (255, 255)


def _is_hidden(image: Image.Image) -> bool:
    """Whether all contents are in the transparency: the colours below it are one."""
    return _has_alpha(image) and image.convert("RGB").getcolors(1) is not None


def _digest(image: Image.Image) -> bytes:
    """Of size and colours, and of alpha where it says something: whatever mode or format they are kept in."""
    mode = "RGBA" if _has_alpha(image) else "RGB"
    header = f"{mode} {image.width} {image.height} ".encode()
    return hashlib.blake2b(header + image.convert(mode).tobytes(), digest_size=16).digest()
