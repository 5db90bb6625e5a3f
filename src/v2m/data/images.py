"""Image files: opening and decoding them, upright and as 8 bits a channel."""

import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from pathlib import Path
from typing import BinaryIO

from PIL import Image, UnidentifiedImageError

from v2m.data.depth import is_deep, to_8_bits
from v2m.data.errors import DecompressionBombError, UnreadableImageError
from v2m.data.image_files import formats, is_other_image
from v2m.data.orientation import find_turn, is_hidden_turn
from v2m.data.sample import sample
from v2m.system.errors import first_line, shown
from v2m.system.files import open_file
from v2m.system.open_files import is_limit

MOST_BYTES = 2**31
"""The largest image file that is read. The most pixels that Pillow allows are fewer, without compression."""
LOOKED_AT = 200
"""Images of a dataset whose headers are read as it is opened."""


def read_image(path: str | Path) -> Image.Image:
    """Read an image file whole (the first frame of an animation), upright, and as 8 bits a channel.

    Raises:
        UnreadableImageError: it cannot be read.
    """
    return decode_image(path, str(path))


def decode_image(file: str | Path | BinaryIO, name: str) -> Image.Image:
    """Like ``read_image``, from a file that is open or a path, with the image's name for errors."""
    with opened_image(file, name) as image:
        return load_pixels(image)


def fit_annotations(image: Image.Image, path: str | Path, size: tuple[int, int]) -> Image.Image:
    """An upright image, or as it is stored where annotations are of those pixels.

    Args:
        image: What ``read_image`` gives.
        path: Its file.
        size: Width and height that the annotations are of; where neither fits, the image is upright.

    Raises:
        UnreadableImageError: it cannot be read.
    """
    # Only a turn by 90 degrees can be seen from the sizes. Other turns are told of when the data is opened.
    if image.size == size or image.size != size[::-1]:
        return image
    with opened_image(path, str(path)) as stored:
        return load_pixels(stored, upright=False) if stored.size == size else image


def tell_hidden_turns(source: str, count: int, name: Callable[[int], str]) -> list[str]:
    """A line where sizes do not show whether annotations are of images as stored or upright, else none.

    Args:
        source: The annotations.
        count: Number of images, of which some are looked at.
        name: Path of an image by number.
    """
    looked = sample(count, LOOKED_AT)
    turned = []
    for path in map(name, looked):
        with suppress(UnreadableImageError), opened_image(path, path) as image:
            if is_hidden_turn(image):
                turned.append(path)
    if not turned:
        return []
    return [
        f"{source}: {len(turned)} of {len(looked)} images that were looked at have an EXIF orientation that "
        f"their size does not show (180 degrees, mirrored, or square), first {shown(turned[0])}; "
        "annotations are taken to be of the upright image"
    ]


@contextmanager
def opened_image(file: str | Path | BinaryIO, name: str) -> Iterator[Image.Image]:
    """An image of which only the header is read; what goes wrong within is an ``UnreadableImageError``.

    This is the one place that opens images. Files are regular ones, of the formats that are read.
    """
    try:
        with _opened(file) as content, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # they do not say which image they are about
            if (size := content.seek(0, os.SEEK_END)) > MOST_BYTES:
                raise ValueError(f"it has {size:,} bytes, expected up to {MOST_BYTES:,}")
            with Image.open(content, formats=formats()) as image:
                yield image
    except Image.DecompressionBombError as error:
        raise DecompressionBombError(name, first_line(error)) from None
    except UnidentifiedImageError:  # PIL names the file, or the object in memory
        reason = (
            "of a format that Pillow does not read here"
            if is_other_image(name)
            else "empty, or of no known format"
        )
        raise UnreadableImageError(name, reason) from None
    except Exception as error:  # decoders raise all kinds for damaged bytes
        if is_limit(error):  # says nothing of the image
            raise
        raise UnreadableImageError(name, first_line(error)) from None


def _opened(file: str | Path | BinaryIO) -> AbstractContextManager[BinaryIO]:
    """The file of a path, which is closed again, or one that is open and stays so."""
    return open_file(file) if isinstance(file, str | Path) else nullcontext(file)


def load_pixels(image: Image.Image, upright: bool = True) -> Image.Image:
    """Decode an opened image, as 8 bits a channel.

    Args:
        image: The image.
        upright: Whether it is turned as its EXIF orientation says; else pixels stay as they are stored.

    Raises:
        ValueError: its pixels are gray values whose range is not known.
    """
    image.load()
    turn = find_turn(image) if upright else None
    if is_deep(image):  # PIL's own conversion would clip it to 8 bits
        pixels = to_8_bits(image)
    elif image.mode == "P" and "transparency" in image.info:  # later conversions would warn
        pixels = image.convert("RGBA")
    else:
        pixels = image.copy()
    return pixels if turn is None else pixels.transpose(turn)
