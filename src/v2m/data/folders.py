"""Images in one folder per class."""

import os
from pathlib import Path

from v2m.data.dataset import EncodedImages
from v2m.data.errors import DataError, same_name
from v2m.data.images import IMG_EXTENSIONS, is_image


class FolderImages(EncodedImages):
    """``<class>/<image>``, at any depth below the class; hidden files and folders are left out."""

    def __init__(self, root: Path) -> None:
        folders = class_folders(root)
        classes = sorted({same_name(name) for name in folders})
        paths = [
            [path for folder in folders if same_name(folder) == name for path in _images_below(root / folder)]
            for name in classes
        ]
        self._paths = [path for of_class in paths for path in of_class]
        if not self._paths:
            raise DataError(f"data: {root} holds no images ({', '.join(IMG_EXTENSIONS)})")
        targets = [target for target, of_class in enumerate(paths) for _ in of_class]
        super().__init__(str(root), classes, targets, declared=False)

    def name(self, index: int) -> str:
        """The path."""
        return self._paths[index]

    def file(self, index: int) -> str:
        """The path."""
        return self._paths[index]


def class_folders(folder: Path) -> list[str]:
    """Names of the folders in a folder, sorted.

    Raises:
        DataError: there are none.
    """
    names = subfolders(folder)
    if not names:
        raise DataError(f"data: {folder} has no class folders, expected {folder.name}/<class>/<image>")
    return names


def subfolders(folder: Path) -> list[str]:
    """Names of the folders in a folder, sorted; none where there is no such folder."""
    if not folder.is_dir():
        return []
    return sorted(p.name for p in folder.iterdir() if p.is_dir() and not p.name.startswith("."))


def _images_below(folder: Path) -> list[str]:
    found = []
    for parent, below, files in os.walk(folder, followlinks=True):
        below[:] = sorted(name for name in below if not name.startswith("."))
        found += [os.path.join(parent, name) for name in sorted(files) if is_image(name)]
    return found
