"""Images in one folder per class, or beside a list of their classes."""

import os
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from v2m.data.classes.dataset import EncodedImages
from v2m.data.classes.labels import index_labels
from v2m.data.classes.source import Opener, SplitSource
from v2m.data.image_files import READ, identity, is_image, subfolders, tell_other_images, walk_files
from v2m.data.layouts import IMAGES
from v2m.system.errors import DataError, few, same_name
from v2m.system.files import read_lines

TINY_IMAGENET = "wnids.txt"
"""A file by which Tiny ImageNet is known."""
RUNS = "runs"
"""Where commands write to, in the current folder."""


def find_folders(source: SplitSource) -> Opener | None:
    """A folder of class folders. Images of Tiny ImageNet to test on have no classes, and are left alone."""
    if (source.root / TINY_IMAGENET).is_file() and subfolders(source.folder) == [IMAGES]:
        return None
    return partial(FolderImages, source.folder) if source.folder.is_dir() else None


def find_flat(root: Path) -> Opener | None:
    """A folder of class folders that is not divided into splits; None where no folder in it has images."""
    names = [name for name in subfolders(root) if not _is_of_runs(root / name)]
    if not any(is_image(path) for name in names for path in walk_files(root / name)):
        return None
    return partial(FolderImages, root, names)


def has_images_only(folder: Path) -> bool:
    """Whether images lie in a folder itself, and no folders beside them."""
    return folder.is_dir() and not subfolders(folder) and any(map(is_image, os.listdir(folder)))


def _is_of_runs(folder: Path) -> bool:
    """Whether it is the folder that runs are written into, by default: their pictures are no class."""
    return folder.name == RUNS and not any(map(is_image, os.listdir(folder)))


def find_listed(source: SplitSource) -> Opener | None:
    """A folder of images with a list of their classes."""
    listed = source.folder / f"{source.split}_annotations.txt"
    return partial(ListedImages, source.folder, listed) if listed.is_file() else None


class FolderImages(EncodedImages):
    """``<class>/<image>``, at any depth below the class; hidden files and folders are left out.

    Links in the folder of a class do not lead into that of another, nor twice to one place.

    Args:
        root: The folder.
        folders: Names of the class folders in it; by default all.
    """

    def __init__(self, root: Path, folders: Sequence[str] | None = None) -> None:
        folders = _class_folders(root) if folders is None else folders
        classes = sorted({same_name(name) for name in folders})
        target_of = {name: target for target, name in enumerate(classes)}
        # No folder is looked into twice, so a link into another class does not take its images.
        seen = {identity(folder) for folder in (root, *(root / name for name in folders))}
        files = []
        # Two folders may be of one class, where their names differ in Unicode's form only.
        for target, folder in sorted((target_of[same_name(folder)], folder) for folder in folders):
            seen.discard(identity(root / folder))
            files += [(target, path) for path in walk_files(root / folder, seen)]
        images = [(target, path) for target, path in files if is_image(path)]
        warnings = tell_other_images(root, [path for _, path in files])
        if lone := [name for name in os.listdir(root) if is_image(name) and not (root / name).is_dir()]:
            warnings.append(f"{root}: {len(lone):,} beside the class folders left out, first {min(lone)}")
        if not images:
            raise DataError("; ".join([f"data: {root} holds no images ({READ})", *warnings]))
        self._paths = [path for _, path in images]
        super().__init__(str(root), classes, [target for target, _ in images], declared=False)
        self.warnings = warnings

    def name(self, index: int) -> str:
        """The path."""
        return self._paths[index]

    def file(self, index: int) -> str:
        """The path."""
        return self._paths[index]


class ListedImages(EncodedImages):
    """Images of one folder whose classes are in a list, as those of Tiny ImageNet's ``val``.

    Args:
        folder: Where the images are, or where they are in ``images``.
        listed: The list: a line for each image with its file name and its class, and a tab between them.
            What follows after a further tab is left alone.

    Raises:
        DataError: a line is of another form, or images and lines are not in pairs.
    """

    def __init__(self, folder: Path, listed: Path) -> None:
        images = folder / "images" if (folder / "images").is_dir() else folder
        files = {same_name(path.name): str(path) for path in images.iterdir() if is_image(path.name)}
        labels: dict[str, str] = {}
        for number, line in enumerate(read_lines(listed), 1):
            name, _, rest = line.partition("\t")
            label = rest.partition("\t")[0]
            if not name or not label:
                raise DataError(f"data: {listed}, line {number} is {line[:40]!r}, expected IMAGE<tab>CLASS")
            if name in labels:
                raise DataError(f"data: {listed}, line {number} has {name} again")
            labels[name] = label
        for what, lone in (
            (f"{listed} names images that are not in {images}", labels.keys() - files.keys()),
            (f"{images} has images that are not in {listed}", files.keys() - labels.keys()),
        ):
            if lone:
                raise DataError(f"data: {what}: {few(sorted(lone))}")
        self._paths = [files[name] for name in labels]
        classes, targets = index_labels(list(labels.values()), None, self.name)
        super().__init__(str(images), classes, targets, declared=False)

    def name(self, index: int) -> str:
        """The path."""
        return self._paths[index]

    def file(self, index: int) -> str:
        """The path."""
        return self._paths[index]


def _class_folders(folder: Path) -> list[str]:
    """Names of the folders in a folder, sorted.

    Raises:
        DataError: there are none.
    """
    if names := subfolders(folder):
        return names
    has_images = any(is_image(name) for name in os.listdir(folder))
    found = "images, but no class folders" if has_images else "no class folders"
    raise DataError(
        f"data: {folder} has {found}, expected {folder.name}/<class>/<image>, or a list "
        f"{folder.name}/{folder.name}_annotations.txt with a line IMAGE<tab>CLASS for each image"
    )
