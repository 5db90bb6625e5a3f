"""Features of images in a file: NumPy's .npz, or Parquet.

Files may come from strangers. Reading them runs nothing that they hold, takes memory in bounds, and refuses
what does not fit together. Either format holds the same arrays, and the facts as JSON.
"""

import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from v2m.features.facts import dump_facts, parse_facts
from v2m.features.npz import MORE, TIMES, read_arrays
from v2m.system.errors import first_line, shown
from v2m.system.extras import how_to_install
from v2m.system.files import open_file, replace_file

COLUMNS = ("features", "targets", "index", "name")
"""What a file holds a row of for each image, and one text of facts beside."""
READ_ERRORS = (
    OSError,
    ValueError,
    LookupError,
    TypeError,
    EOFError,
    RuntimeError,
    NotImplementedError,
    zipfile.BadZipFile,
    zlib.error,
)
"""What reading a damaged file raises: zipfile, zlib, NumPy and pyarrow each have their own."""
SUFFIXES = (".npz", ".parquet")
ROWS_OF_A_BATCH = 1024
"""Rows that are read from a Parquet file before their size is looked at."""
ROWS_OF_A_GROUP = 16384
"""Rows that a Parquet file keeps together."""


@dataclass(frozen=True)
class Features:
    """What a frozen model makes of the images of a split.

    Attributes:
        features: ``[N, D]``, float32.
        targets: Class indices ``[N]``, int64.
        index: Dataset indices of the images ``[N]``, int64, ascending.
        names: Where each image is.
        facts: What they are of, as ``FeatureFacts`` says.
    """

    features: npt.NDArray[np.float32]
    targets: npt.NDArray[np.int64]
    index: npt.NDArray[np.int64]
    names: list[str]
    facts: dict[str, Any]


def check_output(path: Path) -> None:
    """Make sure that features can be written under this name.

    Raises:
        ValueError: its ending is unknown, it is a folder, or the package for this format is not installed.
    """
    if path.suffix not in SUFFIXES:
        raise ValueError(f"output: {path} ends in {path.suffix!r}, expected {' or '.join(SUFFIXES)}")
    if path.is_dir():
        raise ValueError(f"output: {path} is a folder, expected a file that ends in {' or '.join(SUFFIXES)}")
    if path.suffix == ".parquet":
        _parquet()


def write_features(path: Path, features: Features) -> None:
    """Write features to a file, whole or not at all. The same features give the same bytes."""
    write = _write_npz if path.suffix == ".npz" else _write_parquet
    replace_file(path, lambda partial: write(partial, features))


def read_features(path: Path) -> Features:
    """Read what ``write_features`` wrote.

    Raises:
        ValueError: there is no such file, it is no file of features, or it is damaged.
    """
    return _read(path, _read_npz if path.suffix == ".npz" else _read_parquet)


def read_facts(path: Path) -> dict[str, Any]:
    """Read only the facts of a file that ``write_features`` wrote.

    Raises:
        ValueError: there is no such file, it is no file of features, or it is damaged.
    """
    return _read(path, _npz_facts if path.suffix == ".npz" else _parquet_facts)


def _read(path: Path, read: Any) -> Any:
    check_output(path)
    try:
        return read(path)
    except FileNotFoundError:
        raise ValueError(f"{shown(str(path))}: no such file, expected one that v2m embed wrote") from None
    except READ_ERRORS as error:
        reason = shown(first_line(error))[:300]
        raise ValueError(f"{shown(str(path))}: no file of v2m embed, or damaged ({reason})") from None


def _checked(features: Features) -> Features:
    """The features, if their arrays have the right types and lengths.

    Raises:
        ValueError: they have not.
    """
    arrays: list[npt.NDArray[Any]] = [features.features, features.targets, features.index]
    found = [f"{array.dtype.name} {list(array.shape)}" for array in arrays]
    rows = len(features.names)
    types = (np.float32, np.int64, np.int64)
    is_right = all(array.dtype == kind for array, kind in zip(arrays, types, strict=True))
    if not is_right or features.features.ndim != 2 or any(len(array) != rows for array in arrays):
        raise ValueError(
            f"features, targets and index are {', '.join(found)}, expected float32 [N, D] "
            f"and twice int64 [N], with {rows} names"
        )
    return features


def _write_npz(path: Path, features: Features) -> None:
    with path.open("wb") as file:  # np.savez would add its suffix to a name
        np.savez(
            file,
            features=features.features,
            targets=features.targets,
            index=features.index,
            name=np.array(features.names, dtype=str),
            facts=np.array(dump_facts(features.facts)),
        )


def _read_npz(path: Path) -> Features:
    features, targets, index, names, facts = read_arrays(path, [*COLUMNS, "facts"]).values()
    if names.ndim != 1 or names.dtype.kind != "U":
        raise ValueError(f"name is {names.dtype.name} {list(names.shape)}, expected text [N]")
    return _checked(Features(features, targets, index, names.tolist(), parse_facts(str(facts))))


def _npz_facts(path: Path) -> dict[str, Any]:
    return parse_facts(str(read_arrays(path, ["facts"])["facts"]))


def _write_parquet(path: Path, features: Features) -> None:
    pa, pq = _parquet()
    values = pa.array(features.features.ravel())
    columns = dict(
        features=pa.FixedSizeListArray.from_arrays(values, features.features.shape[1]),
        targets=features.targets,
        index=features.index,
        name=features.names,
    )
    table = pa.table(columns).replace_schema_metadata({"v2m": dump_facts(features.facts)})
    pq.write_table(table, path, row_group_size=ROWS_OF_A_GROUP, use_dictionary=False)


def _read_parquet(path: Path) -> Features:
    pa, pq = _parquet()
    most = TIMES * path.stat().st_size + MORE
    batches, size = [], 0
    # Batch by batch, so that a small file that inflates to a large one is noticed before memory is full.
    with open_file(path) as file, pq.ParquetFile(file) as source:
        facts = parse_facts((source.schema_arrow.metadata or {})[b"v2m"])
        for batch in source.iter_batches(ROWS_OF_A_BATCH, columns=list(COLUMNS)):
            size += batch.nbytes
            if size > most:
                raise ValueError(f"its columns are more than {TIMES} times as large as the file")
            batches.append(batch)
        table = pa.Table.from_batches(batches, None if batches else source.schema_arrow)
    columns = {name: table[name] for name in COLUMNS}
    # Arrow's types allow what NumPy's have no value for.
    if any(column.null_count for column in columns.values()):
        raise ValueError("values are missing")
    if not pa.types.is_fixed_size_list(columns["features"].type):
        raise ValueError(f"features is {columns['features'].type}, expected fixed_size_list<float>")
    values = [chunk.flatten().to_numpy() for chunk in columns["features"].chunks]
    width = columns["features"].type.list_size
    return _checked(
        Features(
            (np.concatenate(values) if values else np.empty(0, np.float32)).reshape(len(table), width),
            columns["targets"].to_numpy().copy(),  # since arrow's own memory is read-only
            columns["index"].to_numpy().copy(),
            columns["name"].to_pylist(),
            facts,
        )
    )


def _parquet_facts(path: Path) -> dict[str, Any]:
    _, pq = _parquet()
    with open_file(path) as file:
        return parse_facts((pq.read_schema(file).metadata or {})[b"v2m"])


def _parquet() -> tuple[Any, Any]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise ValueError(
            f"out: a .parquet file needs pyarrow ({how_to_install('pyarrow')}); .npz needs nothing more"
        ) from None
    return pyarrow, pyarrow.parquet
