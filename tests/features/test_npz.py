"""Files of features that a stranger made."""

import json
import os
import pickle
import zipfile

import numpy as np
import pytest

from tests.features.test_files import FACTS
from v2m.features.files import read_facts, read_features
from v2m.features.parts import Parts

GOOD = dict(
    features=np.zeros((3, 2), np.float32),
    targets=np.array([0, 1, 1]),
    index=np.arange(3),
    name=np.array(["a", "b", "c"]),
    facts=np.array(json.dumps(FACTS)),
)


class Payload:
    """What a pickle runs when it is loaded."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (self.path, "w")


def refuse(path, read=read_features):
    with pytest.raises(ValueError, match="no file of v2m embed, or damaged") as caught:
        read(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def write(path, without=(), **changes):
    arrays = {name: value for name, value in (GOOD | changes).items() if name not in without}
    with path.open("wb") as file:
        np.savez(file, **arrays)
    return path


@pytest.mark.parametrize("name", GOOD)
def test_objects_are_not_unpickled_and_missing_arrays_are_told(tmp_path, name):
    planted = tmp_path / "planted"
    refuse(write(tmp_path / "f.npz", **{name: np.array([Payload(str(planted))] * 3, object)}))
    refuse(write(tmp_path / "f.npz", [name]))
    with zipfile.ZipFile(tmp_path / "f.npz", "a") as archive:
        archive.writestr(f"{name}.npy", pickle.dumps(Payload(str(planted))))
    refuse(tmp_path / "f.npz")
    assert not planted.exists()


@pytest.mark.parametrize(
    "changes",
    [
        dict(features=np.zeros((3, 2))),
        dict(features=np.zeros((3, 2), np.int32)),
        dict(features=np.zeros(3, np.float32)),
        dict(features=np.zeros((2, 2), np.float32)),
        dict(features=np.zeros((), np.float32)),
        dict(targets=np.array([0.0, 1.0, 1.0])),
        dict(targets=np.array([0, 1])),
        dict(targets=np.array([[0, 1, 1]])),
        dict(targets=np.array(["0", "1", "1"])),
        dict(index=np.array([0j, 1, 2])),
        dict(name=np.array([1, 2, 3])),
        dict(name=np.array("abc")),
        dict(name=np.array([["a", "b", "c"]])),
        dict(facts=np.array(3)),
        dict(facts=np.array("[" * 100_000)),
        dict(facts=np.array("[]")),
        dict(facts=np.array(json.dumps(FACTS | dict(model=3)))),
        dict(facts=np.array(json.dumps(FACTS | dict(classes=3)))),
        dict(facts=np.array(json.dumps(FACTS | dict(unreadable=[3])))),
        dict(facts=np.array(json.dumps(dict(FACTS, data=dict(source=[]))))),
    ],
)
def test_other_types_and_shapes_are_refused(tmp_path, changes):
    refuse(write(tmp_path / "f.npz", **changes))


def test_sizes_are_those_of_the_file(tmp_path):
    path = tmp_path / "f.npz"
    for shape in ("(3000000000, 2)", "(-3, 2)", "(3,)", "(1, 2)", "(" * 60 + ")" * 60):
        write(path)
        with zipfile.ZipFile(path) as archive:
            entries = {name: archive.read(name) for name in archive.namelist()}
        text = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}\n".encode()
        entries["features.npy"] = b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text + bytes(24)
        with zipfile.ZipFile(path, "w") as archive:
            for name, content in entries.items():
                archive.writestr(name, content)
        refuse(path)
    assert read_facts(path) == FACTS


def test_what_is_inflated_has_its_bounds(tmp_path):
    path = tmp_path / "f.npz"
    np.savez_compressed(path, **GOOD)
    assert read_features(path).names == ["a", "b", "c"]
    bomb = tmp_path / "bomb.npz"
    with zipfile.ZipFile(path) as archive, zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as made:
        for name in archive.namelist():
            with made.open(name, "w") as entry:
                for _ in range(160 if name == "features.npy" else 0):
                    entry.write(bytes(2**20))
                entry.write(archive.read(name))
    assert "more than 32 times as large as the file" in refuse(bomb)


def test_cut_and_changed_bytes_are_refused(tmp_path):
    content = write(tmp_path / "f.npz").read_bytes()
    generator = np.random.default_rng(0)
    for number in range(150):
        other = bytearray(content)
        for place in generator.integers(0, len(content), 1 + number % 4):
            other[place] = generator.integers(256)
        (tmp_path / "f.npz").write_bytes(
            other[: generator.integers(len(content)) if number % 3 == 0 else None]
        )
        try:
            read_features(tmp_path / "f.npz")
        except ValueError as error:
            assert "no file of v2m embed, or damaged" in str(error)  # noqa: PT017


def test_a_pipe_is_refused(tmp_path):
    for suffix in (".npz", ".parquet"):
        pytest.importorskip("pyarrow")
        os.mkfifo(tmp_path / f"f{suffix}")
        assert "is no regular file" in refuse(tmp_path / f"f{suffix}")


@pytest.mark.parametrize("kind", ["float64", "flat", "missing", "no facts", "nulls"])
def test_other_parquet_files_are_refused(tmp_path, kind):
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    values = pa.array(np.zeros(6, np.float64 if kind == "float64" else np.float32))
    columns = dict(
        features=pa.FixedSizeListArray.from_arrays(values, 2),
        targets=pa.array([0, 1, None if kind == "nulls" else 1]),
        index=pa.array([0, 1, 2]),
        name=pa.array(["a", "b", "c"]),
    )
    if kind == "flat":
        columns["features"] = pa.array([1.0, 2.0, 3.0])
    if kind == "missing":
        del columns["index"]
    facts = {} if kind == "no facts" else {"v2m": json.dumps(FACTS)}
    pq.write_table(pa.table(columns).replace_schema_metadata(facts), tmp_path / "f.parquet")
    refuse(tmp_path / "f.parquet")


def test_a_parquet_file_is_inflated_in_bounds(tmp_path):
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    rows = 200_000
    columns = dict(
        features=pa.FixedSizeListArray.from_arrays(pa.array(np.zeros(rows * 100, np.float32)), 100),
        targets=np.zeros(rows, np.int64),
        index=np.arange(rows),
        name=pa.array(["a" * 200] * rows),
    )
    table = pa.table(columns).replace_schema_metadata({"v2m": json.dumps(FACTS)})
    pq.write_table(table, tmp_path / "f.parquet", compression="zstd")
    assert "more than 32 times as large as the file" in refuse(tmp_path / "f.parquet")


@pytest.mark.parametrize("content", [b"[]", b"3", b"[" * 100_000, b"", b"\xff"])
def test_facts_of_parts_that_are_none_start_again(tmp_path, content):
    parts = Parts(tmp_path / "f.npz", dict(model=1), 3, 2)
    parts.folder.mkdir()
    (parts.folder / "facts.json").write_bytes(content)
    assert list(parts.prepare()) == []
    assert json.loads((parts.folder / "facts.json").read_text()) == dict(model=1)


@pytest.mark.parametrize(
    "changes",
    [
        dict(features=np.zeros((3, 2))),
        dict(features=np.zeros(3, np.float32)),
        dict(features=np.float32(0)),
        dict(targets=np.array([0.0, 1, 2])),
        dict(places=np.array([0, 1, 3])),
        dict(places=np.array([[0, 1, 2]])),
        dict(unreadable=np.array("{")),
        dict(unreadable=np.array("[3]")),
        dict(unreadable=np.array('[{"index": "a"}]')),
        dict(unreadable=np.array([Payload("x")], object)),
    ],
)
def test_parts_that_are_none_are_computed_again(tmp_path, changes):
    parts = Parts(tmp_path / "f.npz", dict(model=1), 3, 4)
    parts.folder.mkdir()
    list(parts.prepare())
    good = dict(
        features=np.zeros((3, 2), np.float32),
        targets=np.zeros(3, np.int64),
        places=np.arange(3),
        unreadable=np.array("[]"),
    )
    path = parts.folder / "part-0000000000.npz"
    np.savez(path, **good)
    assert list(parts.prepare()) == ["goes on: 1 of 1 parts are there"]
    np.savez(path, **good | changes)
    assert list(parts.prepare()) == [f"computes {path} again, which is damaged"]
    assert not path.exists()
