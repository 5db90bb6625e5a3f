"""Which files are images, and where they are."""

import os
from collections import Counter
from collections.abc import Iterable, Iterator
from functools import lru_cache
from pathlib import Path

from PIL import Image

from v2m.system.errors import DataError, shown

READ_FORMATS = (
    "JPEG", "PNG", "WEBP", "TIFF", "BMP", "GIF", "PPM",
    "AVIF", "JPEG2000", "BLP", "CUR", "DCX", "DDS", "DIB", "FLI", "FTEX", "GBR", "ICNS", "ICO", "IM", "MSP",
    "PCD", "PCX", "PIXAR", "PSD", "QOI", "SGI", "SUN", "TGA", "XBM", "XPM",
)  # fmt: skip
"""Formats that are read where Pillow has them, the usual ones first.

Pillow decodes all of these itself. EPS is not among them: it is a program, which Ghostscript would run. IPTC
may hold one. FITS unpacks without a bound.
"""
OTHER_IMAGES = frozenset((
    ".heic", ".heif", ".hif", ".avif", ".jxl", ".jp2", ".svg", ".svgz", ".exr", ".hdr", ".psb", ".xcf",
    ".dcm", ".fits", ".fit", ".eps", ".wmf", ".emf",
    ".dng", ".cr2", ".cr3", ".nef", ".arw", ".orf", ".raf", ".rw2",
))  # fmt: skip
"""Suffixes of images that Pillow does not read, or not in every installation."""
SYSTEM_FOLDERS = frozenset(
    ("@eadir", "__macosx", "#recycle", "$recycle.bin", "system volume information", "lost+found")
)
"""What network drives and operating systems put beside images, in lower case."""
READ = ".jpg, .png, .webp, .tif and what else Pillow reads"


def formats() -> tuple[str, ...]:
    """Formats that are read: ``READ_FORMATS``, and those of plugins that somebody has registered with Pillow.

    Those without a magic number come last, since they take anything.
    """
    Image.init()
    return _formats_among(tuple(Image.ID))


@lru_cache
def _formats_among(names: tuple[str, ...]) -> tuple[str, ...]:
    plugins = [name for name in names if not Image.OPEN[name][0].__module__.startswith("PIL.")]
    read = dict.fromkeys(name for name in (*READ_FORMATS, *plugins) if name in names)
    return tuple(sorted(read, key=lambda name: Image.OPEN[name][1] is None))


def is_hidden(name: str) -> bool:
    """Whether a file or folder of this name is left out: it is hidden, or belongs to the system."""
    return name.startswith(".") or name.lower() in SYSTEM_FOLDERS


def is_image(path: str) -> bool:
    """Whether a file is taken for an image: its suffix is one that is read, and its name is not hidden."""
    name = os.path.basename(path)
    format_ = Image.registered_extensions().get(_suffix(name))
    is_known = format_ in formats() or format_ == "MPO"  # of several JPEGs, which JPEG's reader opens
    return is_known and not is_hidden(name)


def is_other_image(path: str) -> bool:
    """Whether a file looks like an image by its suffix, but Pillow does not read it."""
    name = os.path.basename(path)
    return _suffix(name) in OTHER_IMAGES and not is_image(name) and not is_hidden(name)


def _suffix(name: str) -> str:
    return os.path.splitext(name)[1].lower()


def walk_files(folder: str | Path, seen: set[tuple[int, int]] | None = None) -> Iterator[str]:
    """Files in a folder and below, without hidden ones: those of a folder by name, then its folders.

    Links to nothing, to themselves or to where nobody may look count as files.

    Args:
        folder: The folder. Links to folders are followed, but no folder is looked into twice.
        seen: ``identity`` of the folders that were.

    Raises:
        OSError: a folder cannot be looked into.
    """
    seen = set() if seen is None else seen
    waiting = [str(folder)]
    while waiting:
        here = waiting.pop()
        # Links may lead round in a circle, or to one folder twice.
        itself = identity(here)
        if itself in seen:
            continue
        seen.add(itself)
        with os.scandir(here) as entries:
            kept = sorted((e for e in entries if not is_hidden(e.name)), key=lambda entry: entry.name)
        yield from (entry.path for entry in kept if not _is_folder(entry))
        # The last one is taken next, so folders are put there in reverse.
        waiting += [entry.path for entry in reversed(kept) if _is_folder(entry)]


def identity(folder: str | Path) -> tuple[int, int]:
    """Device and number of a folder. A real path would take time by the cube of the depth."""
    status = os.stat(folder)
    return status.st_dev, status.st_ino


def _is_folder(entry: "os.DirEntry[str]") -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself: opening it says so
        return False


def list_files(folder: Path) -> set[str]:
    """Paths of the files in a folder and below, with slashes, counted from the folder."""
    if not folder.is_dir():
        return set()
    start = len(str(folder)) + 1
    return {path[start:].replace(os.sep, "/") for path in walk_files(folder)}


def subfolders(folder: Path) -> list[str]:
    """Names of the folders in a folder, sorted; none where there is no such folder."""
    if not folder.is_dir():
        return []
    return sorted(p.name for p in folder.iterdir() if p.is_dir() and not is_hidden(p.name))


def tell_other_images(source: str | Path, names: Iterable[str]) -> list[str]:
    """A line on files that look like images, but cannot be read; none where there are none."""
    others = list(filter(is_other_image, names))
    if not others:
        return []
    counts = Counter(map(_suffix, others)).most_common()
    kinds = ", ".join(f"{count:,} {suffix}" for suffix, count in counts)
    which = f"{len(others):,} file{'s' if len(others) > 1 else ''}"
    return [
        f"{source}: {which} left out, of formats that Pillow does not read here ({kinds}), "
        f"first {shown(others[0])}; convert them to .jpg or .png"
    ]


def find_images(path: Path) -> list[Path]:
    """The file itself, or all image files in a folder and below, in order of name; hidden ones are left out.

    As ``sort_images``.
    """
    return sort_images(path)[0]


def sort_images(path: Path) -> tuple[list[Path], list[str]]:
    """The images that ``find_images`` finds, and a line on the files that only look like images.

    Links to nothing are among them, since nobody knows what they were.

    Raises:
        DataError: there is no such file or folder, or the folder holds no images.
    """
    if path.is_file():
        return [path], []
    if not path.is_dir():
        found = "neither a regular file nor a folder" if path.exists() else "no such file or folder"
        raise DataError(f"{path}: {found}")
    files = list(walk_files(path))
    images = sorted(Path(file) for file in files if is_image(file) or not os.path.exists(file))
    others = tell_other_images(path, files)
    if not images:
        raise DataError("; ".join([f"{path}: the folder holds no images ({READ})", *others]))
    return images, others
