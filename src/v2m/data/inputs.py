"""Images in all the forms in which people have them: files, addresses, PIL images, arrays and tensors."""

from os import PathLike, fspath
from pathlib import Path
from typing import TypeAlias

import numpy as np
from PIL import Image
from torch import Tensor

from v2m.data.errors import UnreadableImageError
from v2m.data.images import load_pixels, read_image
from v2m.data.urls import is_url, read_url
from v2m.system.errors import DataError, first_line

ImageInput: TypeAlias = str | PathLike[str] | Image.Image | np.ndarray | Tensor
"""An image: a path, an address, a PIL image, an array ``[H, W]`` or ``[H, W, C]``, a tensor ``[C, H, W]``."""
CHANNELS = (1, 3, 4)
KINDS = "a path, an http or https address, a PIL image, an array or a tensor"


def is_image_input(given: object) -> bool:
    """Whether something is one image, and not several: arrays and tensors of four axes are several."""
    if isinstance(given, np.ndarray | Tensor):
        return given.ndim < 4
    return isinstance(given, str | PathLike | Image.Image)


def input_name(given: object) -> str:
    """What to call an image in messages."""
    if isinstance(given, np.ndarray | Tensor):
        kind = "tensor" if isinstance(given, Tensor) else "array"
        return f"{kind} {list(given.shape)} of {str(given.dtype).removeprefix('torch.')}"
    if isinstance(given, Image.Image):
        return getattr(given, "filename", "") or f"PIL image of {given.width}x{given.height}"
    return fspath(given) if isinstance(given, str | PathLike) else type(given).__name__


def as_image(given: ImageInput) -> Image.Image:
    """An image as ``read_image`` gives it, upright and as 8 bits a channel, from whatever it is in.

    Whole numbers of 8 bits are taken as they are, floating point ones as 0..1. Gray arrays of 16 bits are
    read as files of 16 bits are.

    Args:
        given: A path, an address, a PIL image, an array ``[H, W]`` or ``[H, W, C]``, or a tensor
            ``[C, H, W]`` or ``[H, W]``; C is 1 (gray), 3 (RGB) or 4 (RGBA).

    Raises:
        UnreadableImageError: it cannot be read.
        DataError: it is none of these.
    """
    if isinstance(given, str) and is_url(given):
        return read_url(given)
    if isinstance(given, str | PathLike):
        path = Path(given)
        if not path.exists():
            raise UnreadableImageError(str(path), "there is no such file")
        if path.is_dir():
            raise UnreadableImageError(str(path), "a folder, expected a file; name the images in it")
        return read_image(path)
    name = input_name(given)
    try:
        if isinstance(given, Image.Image):
            return load_pixels(given)
        if isinstance(given, Tensor):
            return load_pixels(Image.fromarray(_pixels(_channels_last(given))))
        if isinstance(given, np.ndarray):
            return load_pixels(Image.fromarray(_pixels(given)))
    except MemoryError:
        raise
    except Exception as error:  # decoders raise all kinds for damaged bytes
        raise UnreadableImageError(name, first_line(error)) from None
    raise DataError(f"{name}: no image, expected {KINDS}")


def _channels_last(tensor: Tensor) -> np.ndarray:
    tensor = tensor.detach().cpu()
    if tensor.is_floating_point():
        tensor = tensor.float()  # NumPy has no bfloat16
    if tensor.ndim == 3:
        if tensor.shape[0] not in CHANNELS:
            raise ValueError(f"shape {list(tensor.shape)}, expected [C, H, W] with 1, 3 or 4 channels")
        tensor = tensor.permute(1, 2, 0)
    return tensor.numpy()


def _pixels(array: np.ndarray) -> np.ndarray:
    """Pixels as Pillow takes them: ``[H, W]`` or ``[H, W, 3 or 4]`` of 8 bits, or ``[H, W]`` of 16 bits."""
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[..., 0]
    if not (array.ndim == 2 or (array.ndim == 3 and array.shape[2] in CHANNELS)):
        raise ValueError(f"shape {list(array.shape)}, expected [H, W] or [H, W, C] with 1, 3 or 4 channels")
    if not array.size:
        raise ValueError("it has no pixels")
    if array.dtype == np.uint8 or (array.dtype == np.uint16 and array.ndim == 2):
        return np.ascontiguousarray(array)
    if np.issubdtype(array.dtype, np.floating):
        low, high = array.min(), array.max()
        if not (low >= 0 and high <= 1):  # so that NaN is refused too
            raise ValueError(
                f"floating point values from {low:.4g} to {high:.4g}, expected 0..1, not yet normalised"
            )
        return np.rint(array * np.float32(255)).astype(np.uint8)
    raise ValueError(f"values of type {array.dtype}, expected uint8, or floating point in 0..1")
