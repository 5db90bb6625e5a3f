"""Text files that people write, what is not read, and what is not written through."""

import datetime
import os
import re
import socket
import stat
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal

import pytest

from v2m.system.errors import DataError
from v2m.system.files import (
    check_plain,
    open_file,
    read_file,
    read_json,
    read_names,
    refuse_link,
    replace_file,
)

LATIN = "Sky\nB\u00e4ume\nRoad\n".encode("latin-1")


@pytest.mark.parametrize(
    ("content", "names"),
    [
        (b"\xef\xbb\xbfSky\r\nRoad \r\n\r\n", ["Sky", "Road"]),
        ("B\u00e4ume\nRoad".encode(), ["B\u00e4ume", "Road"]),
        ("Ba\u0308ume\n".encode(), ["B\u00e4ume"]),
        ("a\u2028b\n".encode(), ["a\u2028b"]),
    ],
)
def test_names_are_one_a_line(tmp_path, content, names):
    path = tmp_path / "classes.txt"
    path.write_bytes(content)
    assert read_names(path) == names


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", " has no lines, expected names"),
        (b" \n\n", " has no lines, expected names"),
        (b"Sky\n \nRoad\n", ", line 2 is empty, expected a name"),
        (LATIN, ", line 2: 'B\u00e4ume' is not UTF-8, save the file anew"),
        ("Sky\nRoad\n".encode("utf-16"), " is in UTF-16, expected UTF-8: save it anew"),
        (
            "Sky\nRoad\n".encode("utf-16-be"),
            ", line 1: '\\x00S\\x00k\\x00y\\x00' is not UTF-8, save the file anew",
        ),
    ],
)
def test_what_is_no_list_of_names_is_told_with_its_line(tmp_path, content, words):
    path = tmp_path / "classes.txt"
    path.write_bytes(content)
    with pytest.raises(DataError) as error:
        read_names(path)
    assert str(error.value) == f"{path}{words}"


def make_fifo(path):
    os.mkfifo(path)


def make_socket(path):
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))


@pytest.mark.parametrize(
    "make", [make_fifo, make_socket, os.mkdir, lambda path: path.symlink_to("/dev/zero")]
)
def test_only_regular_files_are_opened(tmp_path, monkeypatch, make):
    monkeypatch.chdir(tmp_path)  # sockets' paths are short
    make(path := tmp_path.__class__("made"))
    for read in (open_file, read_file, read_json, read_names):
        with pytest.raises(DataError, match=r"^made is no regular file, expected one$"):
            read(path)


def test_a_file_is_read_up_to_a_size(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"1234")
    assert read_file(path, 4) == b"1234"
    assert read_json(path, 4) == 1234
    with pytest.raises(DataError, match=r"has more than 3 bytes, expected a smaller file$"):
        read_file(path, 3)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"{", r"is no JSON \(Expecting property name"),
        (b"\xff\xfe{}", "is no JSON"),
        (b"[" * 100_000, r"is no JSON that can be read \(nested too deeply\)$"),
        (b"1" * 5000, r"is no JSON \(Exceeds the limit"),
    ],
)
def test_what_is_no_json_is_told_in_a_line(tmp_path, content, words):
    path = tmp_path / "file.json"
    path.write_bytes(content)
    with pytest.raises(DataError, match=words) as error:
        read_json(path)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


def test_plain_settings_pass():
    check_plain({"a": [1, 2.5, None, True, "text", (3,)], 4: {}})


@pytest.mark.parametrize(
    "value", [datetime.date(2026, 1, 1), [{"a": b"bytes"}], {"a": {Decimal(1): 2}}, {1, 2}]
)
def test_what_is_not_plain_is_refused(value):
    with pytest.raises(ValueError, match=r"^a value of type \w+, expected text or numbers$"):
        check_plain(value)


def test_settings_nest_only_so_deep():
    value = 1
    for _ in range(31):
        value = [value]
    check_plain(value)
    with pytest.raises(ValueError, match=r"^nested more than 32 levels deep$"):
        check_plain([value])


def test_names_of_partial_files_cannot_be_foreseen(tmp_path, victim):
    folder = tmp_path / "run"
    folder.mkdir()
    seen = []

    def write(partial):
        seen.append(partial.name)
        assert partial.stat().st_size == 0
        partial.write_text("new")

    for _ in range(2):
        (folder / ".file.partial").unlink(missing_ok=True)
        (folder / ".file.partial").symlink_to(victim)
        replace_file(folder / "file", write)
        assert (folder / "file").read_text() == "new"
    assert len(set(seen)) == 2
    assert all(re.fullmatch(r"\.file-[0-9a-f]{16}\.partial", name) for name in seen)


def test_a_partial_file_is_made_anew(tmp_path, victim, monkeypatch):
    monkeypatch.setattr("secrets.token_hex", lambda count: "0" * 2 * count)
    (tmp_path / f".file-{'0' * 16}.partial").symlink_to(victim)
    with pytest.raises(FileExistsError, match=r"File exists: '.*/file'$"):
        replace_file(tmp_path / "file", lambda partial: partial.write_text("new"))
    assert not (tmp_path / "file").exists()


@pytest.mark.parametrize("is_there", [True, False])
def test_a_link_in_the_place_of_a_file_is_replaced(tmp_path, victim, is_there):
    path = tmp_path / "file"
    path.symlink_to(victim if is_there else tmp_path / "nowhere")
    replace_file(path, lambda partial: partial.write_text("new"))
    assert not path.is_symlink()
    assert path.read_text() == "new"
    assert not (tmp_path / "nowhere").exists()


def test_what_else_is_in_the_place_of_a_file(tmp_path):
    path = tmp_path / "file"
    os.mkfifo(path)
    replace_file(path, lambda partial: partial.write_text("new"))
    assert path.read_text() == "new"
    path.unlink()
    path.mkdir()
    with pytest.raises(OSError, match=r"^\[Errno \d+\] [\w ]+: '.*/file'$"):
        replace_file(path, lambda partial: partial.write_text("new"))
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("mask", [0o022, 0o077, 0o002])
def test_files_have_the_permissions_of_new_ones(tmp_path, mask):
    before = os.umask(mask)
    try:
        replace_file(tmp_path / "file", lambda partial: partial.write_text("new"))
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == 0o666 & ~mask


def test_names_as_long_as_they_may_be(tmp_path):
    path = tmp_path / ("\u00e4" * 127)  # 254 bytes
    replace_file(path, lambda partial: partial.write_text("new"))
    assert path.read_text() == "new"


def test_what_killed_processes_left_is_cleared_away(tmp_path, victim):
    left = [
        tmp_path / name
        for name in (
            f".old-{1:016}.partial",
            f".link-{2:016}.partial",
            f".new-{3:016}.partial",
            ".mine.partial",
        )
    ]
    left[0].write_text("half")
    left[1].symlink_to(victim)
    left[2].write_text("another process is writing it")
    left[3].write_text("another program's")
    for path in (*left[:2], left[3]):
        os.utime(path, (time.time() - 4000,) * 2, follow_symlinks=False)
    replace_file(tmp_path / "file", lambda partial: partial.write_text("new"))
    assert {path.name for path in tmp_path.iterdir()} == {"file", "victim", left[2].name, left[3].name}


def test_one_file_is_written_by_several_at_a_time(tmp_path):
    path, barrier = tmp_path / "file", threading.Barrier(4, timeout=30)

    def write(number):
        def fill(partial):
            barrier.wait()
            partial.write_text(f"{number}" * 10_000)
            barrier.wait()

        replace_file(path, fill)

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(write, range(4)))
    assert path.read_text() in [f"{number}" * 10_000 for number in range(4)]
    assert list(tmp_path.iterdir()) == [path]


def test_links_are_refused_where_a_folder_of_others_is_written_to(tmp_path):
    refuse_link(tmp_path / "nothing", "")
    refuse_link(tmp_path, "")
    for target in (tmp_path, tmp_path / "nothing"):
        link = tmp_path / f"to-{target.name}"
        link.symlink_to(target)
        with pytest.raises(DataError, match=rf"^{link} is a link, and nothing is .*; go elsewhere$"):
            refuse_link(link, "go elsewhere")


@pytest.mark.skipif(not os.path.exists("/proc/self/mem"), reason="Linux has such a file")
@pytest.mark.parametrize("read", [read_file, read_json])
def test_errors_of_reading_name_the_file(tmp_path, read):
    path = tmp_path / "file"
    path.symlink_to("/proc/self/mem")
    with pytest.raises(OSError, match=r"file") as error:
        read(path)
    assert error.value.filename == path
