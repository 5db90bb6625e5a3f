import io
import tarfile
import zipfile

import pytest
import torch

from v2m.system.archives import check_stored, unpack
from v2m.system.errors import DataError


def test_what_torch_saves_takes_no_more_memory_than_its_size(tmp_path):
    torch.save(dict(weights=torch.zeros(4), epoch=1), tmp_path / "state.pt")
    check_stored(tmp_path / "state.pt")


@pytest.mark.parametrize(
    ("compression", "before", "pickle", "reason"),
    [
        (zipfile.ZIP_DEFLATED, b"", b"N.", "compressed, expected a file as torch.save writes it"),
        (zipfile.ZIP_STORED, b"#", b"N.", "something is before the archive"),
        (
            zipfile.ZIP_STORED,
            b"",
            b"ctorch\nTensor\n.",
            "torch Tensor in it, expected tensors and plain data",
        ),
    ],
)
def test_what_may_take_more_is_refused(tmp_path, compression, before, pickle, reason):
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", compression) as archive:
        archive.writestr("archive/data.pkl", pickle)
    path = tmp_path / "state.pt"
    path.write_bytes(before + content.getvalue())
    with pytest.raises(ValueError, match=reason):
        check_stored(path)


def write_archive(path, files):
    """A zip or a tar, by the suffix, of these files."""
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, content in files.items():
                archive.writestr(name, content)
        return path
    with tarfile.open(path, "w:gz") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


@pytest.mark.parametrize("suffix", [".zip", ".tgz"])
def test_a_folder_of_an_archive_is_unpacked(tmp_path, suffix):
    files = {"top/set/a/1.png": b"one", "top/set/2.png": b"two", "top/other/3.png": b"three", "set": b"4"}
    unpack(write_archive(tmp_path / f"a{suffix}", files), "set", tmp_path / "out", 6)
    found = {str(p.relative_to(tmp_path / "out")): p.read_bytes() for p in (tmp_path / "out").rglob("*.*")}
    assert found == {"a/1.png": b"one", "2.png": b"two"}


@pytest.mark.parametrize("suffix", [".zip", ".tgz"])
@pytest.mark.parametrize("name", ["set/../../evil", "/set/../evil", "set/..\\evil", "set/c:evil"])
def test_no_file_is_written_elsewhere(tmp_path, suffix, name):
    archive = write_archive(tmp_path / f"a{suffix}", {name: b"x"})
    (tmp_path / "in").mkdir()
    with pytest.raises(DataError, match="leads elsewhere"):
        unpack(archive, "set", tmp_path / "in" / "out", 100)
    assert [path for path in tmp_path.rglob("*evil*")] == []


def test_links_are_left_out(tmp_path):
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        for kind, name in (
            (tarfile.SYMTYPE, "set/sym"),
            (tarfile.LNKTYPE, "set/hard"),
            (tarfile.FIFOTYPE, "set/p"),
        ):
            member = tarfile.TarInfo(name)
            member.type, member.linkname = kind, "/etc/passwd"
            archive.addfile(member)
        archive.addfile(tarfile.TarInfo("set/plain"))
    unpack(tmp_path / "a.tar", "set", tmp_path / "out", 100)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["plain"]


@pytest.mark.parametrize("suffix", [".zip", ".tgz"])
def test_an_archive_that_unpacks_to_too_much_is_refused_before_it_is_written(tmp_path, suffix):
    archive = write_archive(tmp_path / f"a{suffix}", {"set/small": b"x", "set/huge": bytes(10**7)})
    with pytest.raises(DataError, match="more than 1,000,000 bytes"):
        unpack(archive, "set", tmp_path / "out", 10**6)
    assert (tmp_path / "out" / "huge").stat().st_size == 10**6


@pytest.mark.parametrize("suffix", [".zip", ".tgz"])
def test_damaged_archives_are_one_line(tmp_path, suffix):
    whole = write_archive(tmp_path / f"a{suffix}", {"set/a": bytes(range(256)) * 99}).read_bytes()
    for number, content in enumerate(
        (b"", b"no archive at all", whole[: len(whole) // 2], whole[:40] + b"?" * 20 + whole[60:])
    ):
        (tmp_path / f"b{number}{suffix}").write_bytes(content)
        with pytest.raises(DataError, match=r"is no whole archive|has no folder"):
            unpack(tmp_path / f"b{number}{suffix}", "set", tmp_path / f"out{number}", 10**6)
