"""Images in tar files, by class folder or as WebDataset shards, read where they lie.

The headers are read once, when the dataset is opened. Images are then read by position, in any order. So each
counts once, whichever process reads it.
"""

import io
import posixpath
import re
import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import BinaryIO

from v2m.data.class_names import read_class_names
from v2m.data.classes.dataset import EncodedImages
from v2m.data.classes.labels import index_labels
from v2m.data.classes.source import Opener, SplitSource
from v2m.data.errors import UnreadableImageError
from v2m.data.image_files import READ, is_hidden, is_image, is_other_image, subfolders, tell_other_images
from v2m.data.images import MOST_BYTES
from v2m.data.splits import SPLITS
from v2m.system.errors import DataError, first_line, same_name
from v2m.system.files import open_file
from v2m.system.open_files import is_limit

SUFFIXES = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst")
"""Ends of names of tars; those of compressed ones are known to refuse them."""
BLOCK = tarfile.BLOCKSIZE
CHUNK = 1 << 20
LONGEST_LABEL = 1000
LONGEST_HEADER = 2**20
"""Bytes of the headers of a file in a tar, with those that only say more of it."""
LONG_NUMBER = re.compile(rb"[0-9]{512}")


def find_tars(source: SplitSource) -> Opener | None:
    """Tars of a split; class folders go before the tar that they may come from."""
    tars = [] if subfolders(source.folder) else source.files(SUFFIXES)
    if not tars:
        return None
    plain = [path for path in tars if path.suffix == ".tar"]
    return partial(TarImages, plain or tars, source.root, SPLITS)


@dataclass(frozen=True)
class Member:
    """A file in a tar: its path there, and where its bytes are."""

    name: str
    offset: int
    size: int


class _Headers:
    """A tar of which headers are read up to a size. Python's reader takes whatever size a header claims.

    Args:
        file: The tar.

    Attributes:
        left: Bytes that may still be read, for the next file in it.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file, self.left = file, LONGEST_HEADER
        self.seek, self.tell = file.seek, file.tell

    def read(self, size: int) -> bytes:
        """Some bytes.

        Raises:
            tarfile.ReadError: they are too many, or nothing that a header holds.
        """
        self.left -= size
        if size < 0 or self.left < 0:
            raise tarfile.ReadError(f"a header of more than {LONGEST_HEADER:,} bytes")
        content = self._file.read(size)
        if LONG_NUMBER.search(content):  # Python 3.11 looks through one in square time
            raise tarfile.ReadError("a number of more than 512 digits in a header")
        return content


class TarImages(EncodedImages):
    """Images of one or more uncompressed tars: ``<class>/<image>``, or ``KEY.jpg`` and ``KEY.cls``.

    Args:
        shards: The files, in order.
        root: Folder where ``classes.txt`` may list the classes that a ``.cls`` counts in.
        wrappers: Names of a folder that may be around all classes of a tar.
    """

    def __init__(self, shards: Sequence[Path], root: Path, wrappers: Sequence[str]) -> None:
        self._images: list[tuple[str, Member]] = []
        labels: list[int | str] = []
        folders: set[str] = set()
        keyed = []
        others: list[str] = []
        for path in shards:
            files, directories = read_members(path)
            others += [f"{path}:{member.name}" for member in files if is_other_image(member.name)]
            keyed.append(any(member.name.endswith(".cls") for member in files))
            if keyed[-1]:
                pairs = _keyed_samples(path, files)
            else:
                pairs = _foldered_samples(path, files, directories, (*wrappers, path.stem), folders)
            for member, label in pairs:
                self._images.append((str(path), member))
                labels.append(label)

        # What is read must be of one kind: labels of folders and of .cls files do not mix.
        source = str(shards[0]) if len(shards) == 1 else f"{shards[0]} (and {len(shards) - 1} more)"
        if any(keyed) != all(keyed):
            raise DataError(f"data: {shards[keyed.index(False)]} has no .cls files, unlike other shards")
        warnings = tell_other_images(source, others)
        if not labels:
            raise DataError("; ".join([f"data: {source} holds no images ({READ})", *warnings]))

        # Folders are their own list, empty ones too; indices count in a list beside the tars.
        names = read_class_names(root) if keyed[0] else sorted(folders)
        classes, targets = index_labels(labels, names, self.name)
        super().__init__(source, classes, targets, declared=keyed[0])
        self.warnings = warnings

    def name(self, index: int) -> str:
        """The tar's path and the member's."""
        path, member = self._images[index]
        return f"{path}:{member.name}"

    def file(self, index: int) -> BinaryIO:
        """The bytes. The tar is opened anew, so threads, forks and thousands of shards are no matter."""
        path, member = self._images[index]
        try:
            if member.size > MOST_BYTES:
                raise DataError(f"it has {member.size:,} bytes, expected up to {MOST_BYTES:,}")
            with open_file(path) as file:
                file.seek(member.offset)
                return io.BytesIO(file.read(member.size))
        except (OSError, DataError) as error:
            if is_limit(error):
                raise
            raise UnreadableImageError(self.name(index), first_line(error)) from None


def read_members(path: Path) -> tuple[list[Member], list[str]]:
    """Files and folders of a tar, without hidden ones.

    Raises:
        DataError: it is compressed, damaged or cut short, or has a file twice or as a link.
    """
    if path.suffix != ".tar":
        raise DataError(f"data: {path} is compressed, unpack it to {path.name.partition('.tar')[0]}.tar")
    files, folders = {}, []
    try:
        with open_file(path) as file:
            headers, end = _Headers(file), 0
            with tarfile.open(fileobj=headers, mode="r:") as tar:  # type: ignore[call-overload]
                while entry := tar.next():
                    headers.left = LONGEST_HEADER
                    tar.members.clear()  # Python keeps every entry, which adds up to gigabytes
                    if tar.offset <= end:  # it would be read again and again
                        raise tarfile.ReadError(f"a negative size at byte {end:,}")
                    end = tar.offset
                    name = posixpath.normpath(entry.name).lstrip("/")
                    if any(map(is_hidden, name.split("/"))):
                        continue
                    if entry.isdir():
                        folders.append(name)
                    elif name in files:
                        raise DataError(f"data: {path} has {name} twice")
                    elif entry.isreg() and not entry.issparse():
                        files[name] = Member(name, entry.offset_data, entry.size)
                    elif is_image(name):  # a link may lead anywhere, and pieces have no one position
                        raise DataError(
                            f"data: {path} has {name} as a link or in pieces, expected plain files"
                        )
                end = tar.offset
            _check_end(file, end)
    except DataError:
        raise
    except (tarfile.TarError, OSError, EOFError, ValueError, OverflowError, RecursionError) as error:
        raise DataError(f"data: {path} is not a whole, uncompressed tar ({first_line(error)})") from None
    return list(files.values()), folders


def _check_end(file: BinaryIO, end: int) -> None:
    """Raise where the tar does not end as it should: Python takes bad headers for the end."""
    file.seek(end)
    if file.read(BLOCK) != bytes(BLOCK):
        raise tarfile.ReadError(f"bad header or end at byte {end:,}")
    while rest := file.read(CHUNK):
        if rest.count(0) != len(rest):
            raise tarfile.ReadError(f"more data after its end at byte {end:,}")


def _foldered_samples(
    path: Path,
    files: Sequence[Member],
    directories: Sequence[str],
    wrappers: Sequence[str],
    classes: set[str],
) -> Iterator[tuple[Member, str]]:
    """Images with the names of their class folders; adds those of all class folders to ``classes``."""
    images = [member for member in files if is_image(member.name)]
    # One folder around all classes, named after the split or the tar, is not a class itself.
    tops = {member.name.partition("/")[0] for member in images}
    wrapped = len(tops) == 1 and tops <= set(wrappers) and all(m.name.count("/") > 1 for m in images)
    depth = 1 if wrapped else 0
    for folder in directories:
        classes.update(map(same_name, folder.split("/")[depth : depth + 1]))
    for member in images:
        parts = member.name.split("/")[depth:]
        if len(parts) < 2:
            raise DataError(f"data: {path}:{member.name} is in no class folder, and there are no .cls files")
        name = same_name(parts[0])
        classes.add(name)
        yield member, name


def _keyed_samples(path: Path, files: Sequence[Member]) -> Iterator[tuple[Member, int | str]]:
    """Images with the contents of their ``.cls``; a key is a path up to the first dot of the file's name."""
    images: dict[str, Member] = {}
    labels: dict[str, Member] = {}
    for member in files:
        folder, name = posixpath.split(member.name)
        stem, _, suffix = name.partition(".")
        key = same_name(posixpath.join(folder, stem))
        if suffix == "cls":
            labels[key] = member
        elif "." not in suffix and is_image(name):  # KEY.seg.png is something else of the sample
            if key in images:
                raise DataError(f"data: {path} has two images for {key}: {images[key].name}, {member.name}")
            images[key] = member
    for key in labels.keys() ^ images.keys():
        found = (labels.get(key) or images[key]).name
        raise DataError(f"data: {path} has {found} without its {'.cls' if key in images else 'image'}")
    with open_file(path) as file:
        for key, member in images.items():  # in the order of the tar, so the file is read forwards
            yield member, _read_label(file, path, labels[key])


def _read_label(file: BinaryIO, path: Path, member: Member) -> int | str:
    file.seek(member.offset)
    try:
        text = file.read(min(member.size, LONGEST_LABEL)).decode("utf-8-sig").strip()
    except UnicodeDecodeError:
        text = ""
    if not text or member.size > LONGEST_LABEL or len(text.splitlines()) > 1:
        raise DataError(f"data: {path}:{member.name} is not a class, expected an index or a name")
    return int(text) if text.isdecimal() else text
