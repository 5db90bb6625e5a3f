"""Images in one folder per class, or beside a list of their classes."""

import os
from pathlib import Path

from v2m.data.classes.dataset import EncodedImages, place_labels
from v2m.data.image_files import READ, is_hidden, is_image, tell_other_images, walk_files
from v2m.system.errors import DataError, few, same_name
from v2m.system.files import read_lines


class FolderImages(EncodedImages):
    """``<class>/<image>``, at any depth below the class; hidden files and folders are left out.

    Links in the folder of a class do not lead into that of another, nor twice to one place.
    """

    def __init__(self, root: Path) -> None:
        folders = class_folders(root)
        classes = sorted({same_name(name) for name in folders})
        places = {name: target for target, name in enumerate(classes)}
        seen = {os.path.realpath(folder) for folder in (root, *(root / name for name in folders))}
        files = []
        for folder in sorted(folders, key=lambda name: places[same_name(name)]):
            seen.discard(os.path.realpath(root / folder))
            files += [(places[same_name(folder)], path) for path in walk_files(root / folder, seen)]
        images = [(target, path) for target, path in files if is_image(path)]
        warnings = tell_other_images(root, [path for _, path in files])
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
            name, label, *_ = [*line.split("\t"), "", ""]
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
        classes, targets = place_labels(list(labels.values()), None, self.name)
        super().__init__(str(images), classes, targets, declared=False)

    def name(self, index: int) -> str:
        """The path."""
        return self._paths[index]

    def file(self, index: int) -> str:
        """The path."""
        return self._paths[index]


def find_list(folder: Path) -> Path | None:
    """The list of the classes of the images in the folder of a split, if there is one."""
    path = folder / f"{folder.name}_annotations.txt"
    return path if path.is_file() else None


def class_folders(folder: Path) -> list[str]:
    """Names of the folders in a folder, sorted.

    Raises:
        DataError: there are none.
    """
    names = subfolders(folder)
    if not names:
        found = (
            "images, but no class folders" if any(map(is_image, os.listdir(folder))) else "no class folders"
        )
        raise DataError(
            f"data: {folder} has {found}, expected {folder.name}/<class>/<image>, or a list "
            f"{folder.name}/{folder.name}_annotations.txt with a line IMAGE<tab>CLASS for each image"
        )
    return names


def subfolders(folder: Path) -> list[str]:
    """Names of the folders in a folder, sorted; none where there is no such folder."""
    if not folder.is_dir():
        return []
    return sorted(p.name for p in folder.iterdir() if p.is_dir() and not is_hidden(p.name))
