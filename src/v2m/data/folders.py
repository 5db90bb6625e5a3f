"""Images in one folder per class."""

from pathlib import Path

from v2m.data.dataset import EncodedImages
from v2m.data.errors import DataError
from v2m.data.image_files import READ, is_hidden, is_image, tell_other_images, walk_files


class FolderImages(EncodedImages):
    """``<class>/<image>``, at any depth below the class; hidden files and folders are left out."""

    def __init__(self, root: Path) -> None:
        classes = class_folders(root)
        files = [(target, path) for target, name in enumerate(classes) for path in walk_files(root / name)]
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
    return sorted(p.name for p in folder.iterdir() if p.is_dir() and not is_hidden(p.name))
