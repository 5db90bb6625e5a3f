"""Parts of a file of features that is not whole yet: computed by any process, kept, checked and merged.

A part depends on the dataset and the batch size alone. So it does not matter which process computes it, and a
command that was stopped goes on with another number of processes.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from filelock import FileLock, Timeout

from v2m.data import LabelledImages
from v2m.features.facts import LeftOut, parse_json
from v2m.features.files import READ_ERRORS, Features
from v2m.features.npz import read_arrays
from v2m.system.errors import DataError, first_line
from v2m.system.files import check_lock, read_json, refuse_link, replace_file
from v2m.tasks.typed import typed

IMAGES_OF_A_PART = 512
"""About as many images are lost at most, for each process, when a command is stopped."""
LOCK = ".lock"


def parts_folder(output: Path) -> Path:
    """The folder beside a file that keeps its parts until it is whole."""
    return output.with_name(f"{output.name}.parts")


class Part(NamedTuple):
    """The images of a part. The arrays in its file have the names of the fields.

    Attributes:
        features: ``[N, D]``, float32.
        targets: Class indices ``[N]``, int64.
        places: Indices in the dataset ``[N]``, int64.
        unreadable: The fields of ``LeftOut`` for each image that could not be read.
    """

    features: npt.NDArray[np.float32]
    targets: npt.NDArray[np.int64]
    places: npt.NDArray[np.int64]
    unreadable: list[dict[str, Any]]


class Parts:
    """The parts of a file: part n has the ``size`` images from ``n * size`` on.

    Args:
        output: The file.
        facts: What its features are of.
        images: Images of the dataset.
        batch_size: Images of a batch. Parts are whole batches, so an image is always in the same batch:
            results may differ in the last digit between batches of other sizes.
    """

    def __init__(self, output: Path, facts: dict[str, Any], images: int, batch_size: int) -> None:
        self.folder = parts_folder(output)
        self.batches = max(1, IMAGES_OF_A_PART // batch_size)
        self._size, self._images, self._facts = self.batches * batch_size, images, facts
        self._facts_path = self.folder / "facts.json"

    def share(self, rank: int, processes: int) -> list[range]:
        """The images of each missing part that a process computes: it has every ``processes``-th part."""
        starts = range(0, self._images, self._size)[rank::processes]
        return [self._range(start) for start in starts if not self._path(start).is_file()]

    def _range(self, start: int) -> range:
        return range(start, min(start + self._size, self._images))

    def _path(self, start: int) -> Path:
        return self.folder / f"part-{start:010d}.npz"

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Make the folder, and keep other commands out of it.

        Raises:
            ValueError: another command is at work there.
        """
        refuse_link(self.folder, "delete it")
        self.folder.mkdir(parents=True, exist_ok=True)
        check_lock(self.folder / LOCK)
        try:
            with FileLock(self.folder / LOCK, timeout=0):
                yield
        except Timeout:
            raise ValueError(f"output: another command is at work in {self.folder}") from None

    def prepare(self) -> Iterator[str]:
        """Delete parts that are damaged or of other facts. Yields lines that tell the user."""
        paths = sorted(self.folder.glob("part-*.npz"))
        try:
            found = read_json(self._facts_path)
        except (OSError, ValueError):
            found = None
        found = found if isinstance(found, dict) else {}
        other = [key for key, value in self._facts.items() if found.get(key) != value]
        if other:
            # Parts go before the new facts come: a stop in between must not make old parts look right.
            for path in paths:
                path.unlink()
            if paths and found:
                yield f"starts again: the parts in {self.folder} are of another {', another '.join(other)}"
            text = json.dumps(self._facts)
            replace_file(self._facts_path, lambda partial: partial.write_text(text, encoding="utf-8"))
            return
        damaged = [path for path in paths if not self._is_whole(path)]
        for path in damaged:
            path.unlink()
            yield f"computes {path} again, which is damaged"
        if len(paths) > len(damaged):
            parts = -(-self._images // self._size)
            yield f"goes on: {len(paths) - len(damaged)} of {parts} parts are there"

    def _is_whole(self, path: Path) -> bool:
        try:
            self._read(int(path.stem.removeprefix("part-")))
        except (OSError, ValueError):
            return False
        return True

    def write(self, images: range, part: Part) -> None:
        """Keep the part of these images."""

        def write(path: Path) -> None:
            with path.open("wb") as file:
                arrays = part._replace(unreadable=np.array(json.dumps(part.unreadable)))  # type: ignore[arg-type]
                np.savez(file, **arrays._asdict())

        replace_file(self._path(images.start), write)

    def _read(self, start: int) -> Part:
        path = self._path(start)
        try:
            part = Part(*read_arrays(path, Part._fields).values())  # type: ignore[arg-type]
            part = part._replace(unreadable=parse_json(str(part.unreadable)))
            left_out = [typed(LeftOut, item, "unreadable") for item in part.unreadable]
        except READ_ERRORS as error:
            raise OSError(f"{path} cannot be read ({first_line(error)}); the same command goes on") from None
        shapes = (part.features.ndim, part.targets.ndim, part.places.ndim)
        types = (part.features.dtype, part.targets.dtype, part.places.dtype)
        is_whole = shapes == (2, 1, 1) and types == (np.float32, np.int64, np.int64)
        # Every image of the part is either there or known to be unreadable, and none is there twice.
        is_whole = is_whole and len(part.features) == len(part.targets) == len(part.places)
        if not is_whole or sorted([*part.places.tolist(), *(item.index for item in left_out)]) != list(
            self._range(start)
        ):
            raise OSError(f"{path} is not whole; the same command goes on")
        return part

    def merge(self, dataset: LabelledImages) -> Features:
        """All parts, in the order of the dataset.

        Raises:
            DataError: no image of the dataset can be read.
            OSError: a part cannot be read.
        """
        # The features of all parts at once and their concatenation would take twice the memory: each part's
        # go into the one array as it is read. The width is known from the first part that has any.
        found = []
        features: npt.NDArray[np.float32] | None = None
        count = 0
        for start in range(0, self._images, self._size):
            part = self._read(start)
            found.append(part._replace(features=part.features[:0]))
            if not len(part.features):
                continue
            if features is None:
                features = np.empty((self._images, part.features.shape[1]), np.float32)
            if part.features.shape[1] != features.shape[1]:
                raise OSError(f"{self._path(start)} has features of another width, delete {self.folder}")
            features[count : count + len(part.features)] = part.features
            count += len(part.features)
        unreadable = [item for part in found for item in part.unreadable]
        if features is None:
            name, reason = unreadable[0]["name"], unreadable[0]["reason"]
            raise DataError(f"data: none of {self._images} images can be read, as {name} ({reason})")
        index = np.concatenate([part.places for part in found])
        return Features(
            features[:count],
            np.concatenate([part.targets for part in found]),
            index,
            [dataset.name(i) for i in index.tolist()],
            self._facts | dict(unreadable=unreadable),
        )
