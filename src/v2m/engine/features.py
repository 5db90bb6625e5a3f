"""Features of images in a file: NumPy's .npz, or Parquet."""

import json
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from v2m.data import first_line, replace_file

SUFFIXES = (".npz", ".parquet")
ROWS_OF_A_GROUP = 16384


@dataclass(frozen=True)
class Features:
    """What a frozen model makes of the images of a split.

    Attributes:
        features: ``[N, D]``, float32.
        targets: Class indices ``[N]``.
        index: Places of the images in the dataset ``[N]``, ascending.
        names: Where each image is.
        facts: Model, data, names of the classes, and the images that were left out.
    """

    features: npt.NDArray[np.float32]
    targets: npt.NDArray[np.int64]
    index: npt.NDArray[np.int64]
    names: list[str]
    facts: dict[str, Any]


def check_output(path: Path) -> None:
    """Make sure that features can be written under this name.

    Raises:
        ValueError: its ending is unknown, or what it needs is not installed.
    """
    if path.suffix not in SUFFIXES:
        raise ValueError(f"output: {path} ends in {path.suffix!r}, expected {' or '.join(SUFFIXES)}")
    if path.is_dir():
        raise ValueError(f"output: {path} is a folder, expected a file that ends in {' or '.join(SUFFIXES)}")
    if path.suffix == ".parquet":
        _parquet()


def write_features(path: Path, features: Features) -> None:
    """Write a file that is there whole or not at all; the same features give the same bytes."""
    write = _write_npz if path.suffix == ".npz" else _write_parquet
    replace_file(path, lambda partial: write(partial, features))


def read_features(path: Path) -> Features:
    """Read what ``write_features`` wrote.

    Raises:
        ValueError: there is no such file, or it is another, or damaged.
    """
    return _read(path, _read_npz if path.suffix == ".npz" else _read_parquet)


def read_facts(path: Path) -> dict[str, Any]:
    """Only the facts of ``read_features``.

    Raises:
        ValueError: there is no such file, or it is another, or damaged.
    """
    return _read(path, _npz_facts if path.suffix == ".npz" else _parquet_facts)


def _read(path: Path, read: Any) -> Any:
    check_output(path)
    try:
        return read(path)
    except FileNotFoundError:
        raise ValueError(f"{path}: no such file, expected one that v2m embed wrote") from None
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise ValueError(f"{path}: no file of v2m embed, or damaged ({first_line(error)})") from None


def _write_npz(path: Path, features: Features) -> None:
    with path.open("wb") as file:  # np.savez would add its suffix to a name
        np.savez(
            file,
            features=features.features,
            targets=features.targets,
            index=features.index,
            name=np.array(features.names, dtype=str),
            facts=np.array(_dumps(features.facts)),
        )


def _read_npz(path: Path) -> Features:
    with path.open("rb") as file, np.load(file) as arrays:  # np.load leaves a damaged file open
        return Features(
            arrays["features"],
            arrays["targets"],
            arrays["index"],
            arrays["name"].tolist(),
            json.loads(arrays["facts"].item()),
        )


def _npz_facts(path: Path) -> dict[str, Any]:
    with path.open("rb") as file, np.load(file) as arrays:
        return json.loads(arrays["facts"].item())


def _write_parquet(path: Path, features: Features) -> None:
    pa, pq = _parquet()
    values = pa.array(features.features.ravel())
    columns = dict(
        features=pa.FixedSizeListArray.from_arrays(values, features.features.shape[1]),
        targets=features.targets,
        index=features.index,
        name=features.names,
    )
    table = pa.table(columns).replace_schema_metadata({"v2m": _dumps(features.facts)})
    pq.write_table(table, path, row_group_size=ROWS_OF_A_GROUP, use_dictionary=False)


def _read_parquet(path: Path) -> Features:
    _, pq = _parquet()
    table = pq.read_table(path)
    values = np.concatenate([chunk.flatten().to_numpy() for chunk in table["features"].chunks])
    return Features(
        values.reshape(len(table), -1),
        table["targets"].to_numpy().copy(),  # since arrow's own memory is read-only
        table["index"].to_numpy().copy(),
        table["name"].to_pylist(),
        json.loads(table.schema.metadata[b"v2m"]),
    )


def _parquet_facts(path: Path) -> dict[str, Any]:
    _, pq = _parquet()
    return json.loads((pq.read_schema(path).metadata or {})[b"v2m"])


def _parquet() -> tuple[Any, Any]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise ValueError(
            "output: a .parquet file needs pyarrow (pip install 'v2m[parquet]'); .npz needs nothing more"
        ) from None
    return pyarrow, pyarrow.parquet


def _dumps(facts: dict[str, Any]) -> str:
    return json.dumps(facts, sort_keys=True)
