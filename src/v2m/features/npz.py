"""Arrays of a ``.npz`` file that a stranger may have written.

``numpy.load`` would do for files of our own. It believes the size that a header gives, and inflates all that
is there.
"""

import zipfile
from collections.abc import Sequence
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from v2m.system.files import open_file

TIMES, MORE = 32, 2**26
"""Arrays may be 32 times as large as their file, and 64 MiB more: a small file must not fill the memory."""
KINDS = "biufU"
"""NumPy's kinds of numbers and text. Objects are left out: loading their pickles would run code."""


def read_arrays(path: Path, names: Sequence[str]) -> dict[str, npt.NDArray[Any]]:
    """Read the arrays of these names. Other arrays in the file are not looked at.

    Raises:
        KeyError: an array is missing.
        ValueError: an array holds objects, its size is not the one in its header, or all are far larger than
            the file.
        OSError: the file cannot be read.
    """
    with open_file(path) as file, zipfile.ZipFile(file) as archive:
        size = path.stat().st_size
        # The index of the archive has the sizes: nothing is inflated before they are known to be in bounds.
        entries = {name: archive.getinfo(f"{name}.npy") for name in names}
        if sum(entry.file_size for entry in entries.values()) > TIMES * size + MORE:
            raise ValueError(f"its arrays are more than {TIMES} times as large as the file")
        return {name: _read(archive, entry, name) for name, entry in entries.items()}


def _read(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, name: str) -> npt.NDArray[Any]:
    with archive.open(entry) as stream:
        version = np.lib.format.read_magic(stream)
        read = (
            np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        )
        shape, is_fortran, dtype = read(stream)
        if dtype.kind not in KINDS:
            raise ValueError(f"{name} holds {dtype.name}, expected numbers or text")
        content = stream.read()  # no more than the entry says
    # The shape is from the header: one that the bytes do not fill must not reach reshape.
    if len(content) != prod(shape) * dtype.itemsize:
        raise ValueError(f"{name} has {len(content):,} bytes, expected {prod(shape) * dtype.itemsize:,}")
    return np.frombuffer(content, dtype).reshape(shape, order="F" if is_fortran else "C").copy()
