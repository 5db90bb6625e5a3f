"""The header of a file of weights, which tells what is in it before any of it is loaded."""

from math import prod
from pathlib import Path

from safetensors import safe_open

from v2m.models.bounds import Contents
from v2m.system.files import open_file

HEADER_BYTES = 2**24
MOST_TENSORS = 2**15
DTYPES = {"F64": True, "F32": True, "F16": True, "BF16": True} | dict.fromkeys(
    ("I64", "I32", "I16", "I8", "U8", "BOOL"), False
)
"""Types of saved tensors, and whether they are floating-point."""


def read_header(path: Path) -> Contents:
    """Read the header of a safetensors file, without loading its tensors.

    Raises:
        DataError: the path is no regular file.
        ValueError: the header is too large, or has more tensors or other types than any model here.
        SafetensorError: the file is no safetensors file, or does not fit its header.
        OSError: the file cannot be read.
    """
    # The size of the header is looked at first: safetensors would take a much larger one.
    with open_file(path) as file:
        size = int.from_bytes(file.read(8), "little")
    if size > HEADER_BYTES:
        raise ValueError(f"its header has {size:,} bytes, expected at most {HEADER_BYTES:,}")
    is_float, numbers = {}, 0
    with safe_open(path, "pt") as tensors:
        names = tensors.keys()
        if len(names) > MOST_TENSORS:
            raise ValueError(f"it has {len(names):,} tensors, expected at most {MOST_TENSORS:,}")
        for name in names:
            part = tensors.get_slice(name)
            dtype = part.get_dtype()
            if dtype not in DTYPES:
                raise ValueError(f"{name} is of type {dtype}, expected one of {', '.join(DTYPES)}")
            is_float[name] = DTYPES[dtype]
            numbers += prod(part.get_shape())
    return Contents(is_float, numbers)
