"""Text files that people write, and what is not read."""

import datetime
import os
import socket
from decimal import Decimal

import pytest

from v2m.data import DataError
from v2m.data.files import check_plain, open_file, read_file, read_json, read_names

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
