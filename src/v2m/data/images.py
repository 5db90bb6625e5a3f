"""Image files: finding, opening and decoding them."""

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, TypeVar

import numpy as np
from PIL import Image, UnidentifiedImageError
from torchvision.datasets.folder import IMG_EXTENSIONS

from v2m.data.errors import DataError, DecompressionBombError, UnreadableImageError, first_line
from v2m.data.open_files import is_limit

T = TypeVar("T")


def read_image(path: str | Path) -> Image.Image:
    """Read an image file whole (the first frame of an animation), 16 bits a pixel reduced to 8.

    Raises:
        UnreadableImageError: it cannot be read.
    """
    return decode_image(path, str(path))


def read_batches(
    paths: Sequence[Path], batch_size: int, prepare: Callable[[Image.Image], T]
) -> Iterator[dict[Path, T | DataError]]:
    """Image files, prepared, some at a time and in order; the error in place of one that cannot be read."""
    for start in range(0, len(paths), batch_size):
        batch: dict[Path, T | DataError] = {}
        for path in paths[start : start + batch_size]:
            try:
                batch[path] = prepare(read_image(path))
            except DataError as error:
                batch[path] = error
        yield batch


def decode_image(file: str | Path | BinaryIO, name: str) -> Image.Image:
    """Like ``read_image``, from a file that is open or a path, with the image's name for errors."""
    with opened_image(file, name) as image:
        return load_pixels(image)


@contextmanager
def opened_image(file: str | Path | BinaryIO, name: str) -> Iterator[Image.Image]:
    """An image of which only the header is read; what goes wrong within is an ``UnreadableImageError``."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # they do not say which image they are about
            with Image.open(file) as image:
                yield image
    except Image.DecompressionBombError as error:
        raise DecompressionBombError(name, first_line(error)) from None
    except UnidentifiedImageError:  # PIL names the file, or the object in memory
        raise UnreadableImageError(name, "empty, or of no known format") from None
    except Exception as error:  # decoders raise all kinds for damaged bytes
        if is_limit(error):  # says nothing of the image
            raise
        raise UnreadableImageError(name, first_line(error)) from None


def load_pixels(image: Image.Image) -> Image.Image:
    """Decode an opened image, as 8 bits a channel.

    Raises:
        ValueError: its pixels are floating point numbers.
    """
    image.load()
    if image.mode == "F":
        raise ValueError("floating point pixels have no known range")
    if image.mode.startswith("I"):  # 16 bits a pixel; PIL's own conversion would clip it to 8
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    if image.mode == "P" and "transparency" in image.info:  # later conversions would warn
        return image.convert("RGBA")
    return image.copy()


def is_image(name: str) -> bool:
    """Whether a file of this name is taken for an image: by its suffix, and unless it is hidden."""
    return name.lower().endswith(IMG_EXTENSIONS) and not name.startswith(".")


def find_images(path: Path) -> list[Path]:
    """The file itself, or all image files in a folder and below, in order of name; hidden ones are left out.

    Raises:
        DataError: there is no such file or folder, or the folder holds no images.
    """
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise DataError(f"{path}: no such file or folder")
    images = sorted(p for p in path.rglob("*") if is_image(p.name) and p.is_file() and not _hidden(p, path))
    if not images:
        raise DataError(f"{path}: the folder holds no images ({', '.join(IMG_EXTENSIONS)})")
    return images


def _hidden(path: Path, root: Path) -> bool:
    return any(part.startswith(".") for part in path.relative_to(root).parts)
