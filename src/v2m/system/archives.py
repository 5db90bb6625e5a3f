"""Archives (zip) that a stranger may have written, as ``torch.save`` writes them."""

import os
import pickletools
import zipfile
from pathlib import Path

from v2m.system.files import open_file

ALLOCATING = ("Tensor", "bytearray")
"""Names that a pickle could call with a number of bytes, which would then be allocated."""


def check_stored(path: Path) -> None:
    """See that reading an archive takes no more memory than the file has bytes.

    Nothing in it may be compressed, and no pickle in it may allocate memory by a number alone.

    Raises:
        ValueError: it may take more; the message is the reason.
        OSError, BadZipFile: it cannot be read.
    """
    with open_file(path) as file, zipfile.ZipFile(file) as archive:
        items = archive.infolist()
        is_plain = all(item.compress_type == zipfile.ZIP_STORED for item in items)
        size = file.seek(0, os.SEEK_END)
        if not is_plain or sum(item.file_size for item in items) > size:
            raise ValueError("compressed, expected a file as torch.save writes it")
        if min(
            (item.header_offset for item in items), default=0
        ):  # readers may differ about what such a file holds
            raise ValueError("something is before the archive")
        for item in items:
            if item.filename.lower().endswith(".pkl"):
                _check_pickle(archive.read(item))


def _check_pickle(content: bytes) -> None:
    for operation, argument, _ in pickletools.genops(content):
        if operation.name == "GLOBAL" and str(argument).split()[-1] in ALLOCATING:
            raise ValueError(f"{argument} in it, expected tensors and plain data")
