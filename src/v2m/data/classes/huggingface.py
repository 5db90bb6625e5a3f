"""Datasets of Hugging Face, from parquet files or the hub, through timm's reader."""

import hashlib
import io
import os
import sys
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from itertools import accumulate
from pathlib import Path
from typing import Any, BinaryIO

from v2m.data.class_names import read_class_names
from v2m.data.classes.dataset import EncodedImages
from v2m.data.classes.labels import index_labels
from v2m.data.classes.source import Opener, SplitSource
from v2m.data.errors import UnreadableImageError
from v2m.data.image_files import subfolders
from v2m.system import network
from v2m.system.errors import DataError, first_line
from v2m.system.extras import how_to_install, missing
from v2m.system.files import open_file
from v2m.system.network import bounded
from v2m.system.open_files import is_limit

PREFIX = "hfds/"
"""What the name of a dataset on the hub begins with."""
PARQUET = (".parquet",)
IMAGE_COLUMNS = ("image", "img", "jpg", "png")
LABEL_COLUMNS = ("label", "labels", "fine_label", "cls")


class HfImages(EncodedImages):
    """Rows of a dataset that ``datasets`` has put into its cache.

    Args:
        reader: timm's reader of one split.
        source: What was read.
        names: The classes, where the dataset has none of its own.
        folders: Where the files may be that rows name instead of bytes.
        files: Files that the rows come from, in order, and the number of rows in each.
        allow_outside: Whether the files that rows name may be elsewhere, counted from the first folder; None
            where they never may.
    """

    def __init__(
        self,
        reader: Any,
        source: str,
        names: Sequence[str] | None,
        folders: Sequence[Path],
        files: Sequence[tuple[str, int]],
        *,
        allow_outside: bool | None = None,
    ) -> None:
        self._reader, self._files = reader, [name for name, _ in files]
        self._folders = [folder.resolve() for folder in folders]
        self._allow_outside = allow_outside
        self._ends = list(accumulate(rows for _, rows in files))
        labels = list(reader.dataset[reader.label_key])
        names = list(reader.class_to_idx) or names
        if not labels:
            raise DataError(f"data: {source} holds no images")
        if not all(isinstance(label, int | str) for label in labels):
            raise DataError(f"data: {source} has labels in column {reader.label_key!r} that are no classes")
        classes, targets = index_labels(labels, names, self.name)
        super().__init__(source, classes, targets)

    def name(self, index: int) -> str:
        """The file and the row in it."""
        file = bisect_right(self._ends, index)
        first = self._ends[file - 1] if file else 0
        return f"{self._files[file]} row {index - first}"

    def file(self, index: int) -> str | BinaryIO:
        """The bytes, or the path of a file, in the folder of the data unless others are allowed."""
        try:
            row = self._reader.dataset[index][self._reader.image_key] or {}
            if content := row.get("bytes"):
                return io.BytesIO(content)
            if not (named := row.get("path")):
                raise DataError("the row has no image")
            # Links are followed before it is seen whether a path stays in a folder.
            for folder in self._folders:
                if (path := (folder / named).resolve()).is_relative_to(folder):
                    return str(path)
            if self._allow_outside:
                return str(self._folders[0] / named)
            remedy = "" if self._allow_outside is None else "; --allow_outside true reads it"
            raise DataError(f"the row has no image, but names a file elsewhere: {named}{remedy}")
        except (OSError, ValueError) as error:
            if is_limit(error):
                raise
            raise UnreadableImageError(self.name(index), first_line(error)) from None


def find_parquet(source: SplitSource) -> Opener | None:
    """Parquet files of a split; class folders go before them."""
    files = [] if subfolders(source.folder) else source.files(PARQUET)
    return partial(_open_parquet, files, source) if files else None


def _open_parquet(files: Sequence[Path], source: SplitSource) -> HfImages:
    """Open parquet files of a split in a folder.

    Raises:
        DataError: ``datasets`` is not there, or the files cannot be read as images.
    """
    _require_datasets(files[0])
    from pyarrow import ArrowException, parquet

    rows, columns = [], []
    for file in files:
        try:
            with open_file(file) as content, parquet.ParquetFile(content) as table:
                rows.append((str(file), table.metadata.num_rows))
                columns = table.schema_arrow.names
        except (ArrowException, OSError) as error:
            raise DataError(f"data: {file} is not a whole parquet file ({first_line(error)})") from None
    folder, data_dir = files[0].parent, source.data_dir
    try:
        reader = _read(str(_link(files, _cache(data_dir))), "train", columns, str(folder), data_dir)
    except DataError:
        _refuse_damaged(files)  # the library does not say which file it is
        raise
    name, classes = str(folder / f"{source.split}*.parquet"), read_class_names(source.root)
    return HfImages(reader, name, classes, [source.root], rows, allow_outside=source.allow_outside)


def _refuse_damaged(files: Sequence[Path]) -> None:
    """Read files whole.

    Raises:
        DataError: one is damaged.
    """
    from pyarrow import ArrowException, parquet

    for file in files:
        try:
            with parquet.ParquetFile(file) as table:
                for _ in table.iter_batches(1):
                    pass
        except (ArrowException, OSError) as error:
            raise DataError(f"data: {file} is not a whole parquet file ({first_line(error)})") from None


def _link(files: Sequence[Path], cache: Path) -> Path:
    """A folder with links to these files: the reader takes a folder, and guesses what in it is of a split."""
    # Files that were changed get another folder, since the library takes its copy by the name of the folder.
    stats = [(str(file.resolve()), file.stat().st_size, file.stat().st_mtime_ns) for file in files]
    folder = cache / "links" / hashlib.sha256(repr(stats).encode()).hexdigest()[:16]
    folder.mkdir(parents=True, exist_ok=True)
    for number, (path, _, _) in enumerate(stats):
        with suppress(FileExistsError):  # another process may be linking them too
            (folder / f"train-{number:05}-of-{len(stats):05}.parquet").symlink_to(path)
    return folder


def find_hub_splits(source: str, data_dir: Path) -> dict[str, Callable[[], HfImages]]:
    """Splits of ``hfds/NAME``, a dataset on the hub.

    Raises:
        DataError: ``datasets`` is not there, there is no such dataset, or a local folder has its name.
    """
    name = source.removeprefix(PREFIX)
    if os.path.exists(name):
        raise DataError(f"data: {source} is also a local folder; name it without {PREFIX}, or run elsewhere")
    _require_datasets(source)
    import datasets
    from datasets.packaged_modules import _PACKAGED_DATASETS_MODULES

    if name in _PACKAGED_DATASETS_MODULES:  # would read whatever is in the current folder
        raise DataError(
            f"data: {source} is a format and not a dataset, expected the path of the folder itself"
        )

    try:
        with bounded(network.LOOK_UP):
            info = datasets.get_dataset_config_info(name, cache_dir=str(_cache(data_dir)))
    except Exception as error:  # of many kinds, for names, networks and formats
        raise DataError(f"data: {source} cannot be had ({first_line(error)})") from None

    def open_split(split: str) -> HfImages:
        reader = _read(name, split, list(info.features or ("image", "label")), source, data_dir)
        caches = [_cache(data_dir), Path(datasets.config.HF_CACHE_HOME)]
        return HfImages(reader, f"{source} {split}", None, caches, [(f"{source} {split}", len(reader))])

    return {split: partial(open_split, split) for split in info.splits or ()}


def _read(name: str, split: str, columns: Sequence[str], source: str, data_dir: Path) -> Any:
    """The reader of a split, which is timm's."""
    from timm.data.readers.reader_hfds import ReaderHfds

    keys = [next((c for c in known if c in columns), None) for known in (IMAGE_COLUMNS, LABEL_COLUMNS)]
    if None in keys:
        raise DataError(
            f"data: {source} has the columns {', '.join(columns)}, "
            f"expected one of {', '.join(IMAGE_COLUMNS)} and one of {', '.join(LABEL_COLUMNS)}"
        )
    try:
        with _quiet(), bounded(network.DOWNLOAD):
            cache = str(_cache(data_dir))
            return ReaderHfds(name, root=cache, split=split, input_key=keys[0], target_key=keys[1])
    except Exception as error:  # the library's own and those of pyarrow, fsspec and the network
        raise DataError(f"data: {source} cannot be read as images ({first_line(error)})") from None


@contextmanager
def _quiet() -> Iterator[None]:
    """No progress bars where nobody looks, and no lines beside that of an error."""
    from datasets.utils import (
        are_progress_bars_disabled,
        disable_progress_bars,
        enable_progress_bars,
        logging,
    )

    level, is_kept = logging.get_verbosity(), sys.stderr.isatty() or are_progress_bars_disabled()
    logging.set_verbosity(logging.CRITICAL)
    if not is_kept:
        disable_progress_bars()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if not is_kept:
            enable_progress_bars()


def _require_datasets(source: Any) -> None:
    if missing(["datasets"]):
        raise DataError(f"data: {source} needs the datasets library: {how_to_install('datasets')}")


def _cache(data_dir: Path) -> Path:
    return data_dir / "huggingface"
