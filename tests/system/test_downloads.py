import hashlib
import re

import pytest

from tests.data.servers import file_server, slow_server
from v2m.system import downloads, network
from v2m.system.downloads import WebFile, download
from v2m.system.errors import DataError

CONTENT = bytes(range(256)) * 4000


def web_file(url, content=CONTENT):
    return WebFile(url, len(content), hashlib.md5(content).hexdigest())


def test_a_file_comes_whole_and_is_told_with_its_size(tmp_path, capsys):
    with file_server(CONTENT) as (url, ranges):
        download(web_file(url), tmp_path / "a")
    assert (tmp_path / "a").read_bytes() == CONTENT
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
    assert ranges == [None]
    assert capsys.readouterr().err == f"downloading {url} (1 MB) to {tmp_path / 'a'}\n"


@pytest.mark.parametrize("knows_ranges", [True, False])
def test_a_cut_connection_is_gone_on_with(tmp_path, knows_ranges):
    with file_server(CONTENT, cuts_after=300_000, knows_ranges=knows_ranges) as (url, ranges):
        download(web_file(url), tmp_path / "a")
    assert (tmp_path / "a").read_bytes() == CONTENT
    assert ranges == [None, "bytes=300000-"]


def test_the_next_command_goes_on_with_what_an_earlier_one_left(tmp_path):
    (tmp_path / "a.partial").write_bytes(CONTENT[:5000])
    with file_server(CONTENT) as (url, ranges):
        download(web_file(url), tmp_path / "a")
    assert (tmp_path / "a").read_bytes() == CONTENT
    assert ranges == ["bytes=5000-"]


def test_a_whole_partial_file_needs_no_server(tmp_path):
    (tmp_path / "a.partial").write_bytes(CONTENT)
    download(web_file("http://127.0.0.1:9/a"), tmp_path / "a")
    assert (tmp_path / "a").read_bytes() == CONTENT


@pytest.mark.parametrize("tells_length", [True, False])
def test_another_file_is_refused(tmp_path, tells_length):
    for other in (CONTENT + b"more", CONTENT[:-9]):
        with file_server(other, tells_length=tells_length) as (url, _), pytest.raises(DataError):
            download(web_file(url), tmp_path / "a")
        assert not (tmp_path / "a").exists()


def test_a_wrong_hash_is_told_and_the_next_try_starts_anew(tmp_path):
    damaged = b"x" + CONTENT[1:]
    with file_server(damaged) as (url, _), pytest.raises(DataError, match=r"MD5 \w{32}, expected \w{32}"):
        download(web_file(url), tmp_path / "a")
    assert list(tmp_path.iterdir()) == []
    with file_server(CONTENT) as (url, ranges):
        download(web_file(url), tmp_path / "a")
    assert ranges == [None]


def test_a_file_whose_size_nobody_knows_comes_too_up_to_a_limit(tmp_path):
    with file_server(CONTENT, tells_length=False) as (url, _):
        download(WebFile(url, 1_000_000, None), tmp_path / "a")
        assert (tmp_path / "a").read_bytes() == CONTENT
        with pytest.raises(DataError, match="has more than 200,000 bytes"):
            download(WebFile(url, 100_000, None), tmp_path / "b")
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


@pytest.mark.parametrize("is_dripping", [False, True])
def test_a_server_that_never_ends_is_one_line_and_keeps_what_came(tmp_path, monkeypatch, is_dripping):
    monkeypatch.setattr(network, "DOWNLOAD", 1.0)
    with (
        slow_server(is_dripping) as address,
        pytest.raises(DataError, match=r"could not be downloaded \(.*(timed out|did not finish)") as caught,
    ):
        download(WebFile(address, 999, None), tmp_path / "a")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "a").exists()


def test_no_server_is_one_line(tmp_path):
    with pytest.raises(DataError, match=r"9/a could not be downloaded .*refused"):
        download(web_file("http://127.0.0.1:9/a"), tmp_path / "a")


def test_nothing_is_written_through_a_link(tmp_path):
    (tmp_path / "other").write_bytes(b"mine")
    (tmp_path / "a.partial").symlink_to(tmp_path / "other")
    with file_server(CONTENT) as (url, _), pytest.raises(DataError, match="is a link"):
        download(web_file(url), tmp_path / "a")
    assert (tmp_path / "other").read_bytes() == b"mine"


def test_progress_is_a_line_from_time_to_time_where_there_is_no_terminal(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(downloads, "SECONDS_A_LINE", 0.0)
    with file_server(CONTENT) as (url, _):
        download(web_file(url), tmp_path / "a")
    first, *lines = capsys.readouterr().err.splitlines()
    assert first.startswith("downloading ")
    assert re.fullmatch(r"downloaded 0 of 1 MB \(\d+%\)", lines[0])
    assert lines[-1] == "downloaded 1 of 1 MB (100%)"
