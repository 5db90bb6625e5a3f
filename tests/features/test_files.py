import sys

import numpy as np
import pytest

from v2m.features.files import Features, check_output, read_facts, read_features, write_features

FACTS = dict(
    model=dict(source="runs/é", architecture="v2m_nano", sha256="ab"),
    data=dict(source="bugs", split="val", images=6, sha256="cd"),
    classes=["ant", "bee"],
    images=dict(in_chans=3),
    unreadable=[dict(index=2, name="x.png", reason="no image")],
)


@pytest.fixture
def features():
    generator = np.random.default_rng(0)
    values = generator.normal(size=(5, 3)).astype(np.float32)
    return Features(values, np.array([0, 1, 1, 0, 1]), np.array([0, 1, 3, 4, 5]), [*"abc", "é", ""], FACTS)


@pytest.mark.parametrize("suffix", [".npz", ".parquet"])
def test_both_formats_hold_everything_and_are_the_same_every_time(features, tmp_path, suffix):
    path = tmp_path / f"features{suffix}"
    write_features(path, features)
    read = read_features(path)
    assert read.features.dtype == np.float32
    for name in ("features", "targets", "index"):
        np.testing.assert_array_equal(getattr(read, name), getattr(features, name))
    assert (read.names, read.facts) == (features.names, FACTS)
    assert read_facts(path) == FACTS
    content = path.read_bytes()
    write_features(path, features)
    assert path.read_bytes() == content
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_other_libraries_read_them(features, tmp_path):
    pq = pytest.importorskip("pyarrow.parquet")
    write_features(tmp_path / "f.npz", features)
    write_features(tmp_path / "f.parquet", features)
    with np.load(tmp_path / "f.npz") as arrays:
        assert sorted(arrays) == ["facts", "features", "index", "name", "targets"]
    table = pq.read_table(tmp_path / "f.parquet")
    assert table.schema.field("features").type.list_size == 3
    assert table["features"][3].as_py() == pytest.approx(features.features[3].tolist())


def test_a_name_that_cannot_be_is_said(tmp_path, monkeypatch):
    with pytest.raises(ValueError, match=r"f\.csv ends in '\.csv', expected \.npz or \.parquet"):
        check_output(tmp_path / "f.csv")
    (tmp_path / "f.npz").mkdir()
    with pytest.raises(ValueError, match="is a folder, expected a file"):
        check_output(tmp_path / "f.npz")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ValueError, match=r"needs pyarrow \(pip install pyarrow\)"):
        check_output(tmp_path / "f.parquet")


@pytest.mark.parametrize("suffix", [".npz", ".parquet"])
def test_a_file_that_is_none_of_ours_is_said(features, tmp_path, suffix):
    path = tmp_path / f"f{suffix}"
    with pytest.raises(ValueError, match="no such file, expected one that v2m embed wrote"):
        read_facts(path)
    path.write_bytes(b"nonsense")
    with pytest.raises(ValueError, match="no file of v2m embed, or damaged"):
        read_features(path)
    write_features(path, features)
    content = bytearray(path.read_bytes())
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(ValueError, match="no file of v2m embed, or damaged"):
        read_features(path)
