"""Large files from the web: fetched whole or not at all, and gone on with where it stopped."""

import hashlib
import sys
import time
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from v2m.system import network
from v2m.system.errors import DataError, short
from v2m.system.files import open_file, put_in_place, refuse_link
from v2m.system.network import bounded

TRIES = 5
"""Connections in a row that may end early."""
BLOCK = 2**18
MEGABYTE = 10**6
SECONDS_A_LINE = 10.0
"""Between lines of progress in a file; in a terminal there is one line, written over."""


@dataclass(frozen=True)
class WebFile:
    """A file on the web.

    Attributes:
        url: Where it is.
        size: Its size in bytes; without a hash it is about that.
        md5: Its MD5 in hexadecimal; None where the archive is made on request, and what is in it is checked.
    """

    url: str
    size: int
    md5: str | None


def download(file: WebFile, path: Path) -> None:
    """Fetch a file. What has come stays beside ``path`` until it is whole; the next call goes on there.

    Raises:
        DataError: it could not be fetched, or is another file than expected.
    """
    partial = path.with_name(f"{path.name}.partial")
    refuse_link(partial, "delete it")
    sys.stderr.write(f"downloading {file.url} ({_megabytes(file.size)}) to {path}\n")
    try:
        with bounded(network.DOWNLOAD):
            _fetch_whole(file, partial)
    except (OSError, HTTPException) as error:
        kept = partial.stat().st_size if partial.is_file() else 0
        hint = f"; {_megabytes(kept)} are kept, and the same command goes on there" if kept else ""
        raise DataError(f"{file.url} could not be downloaded ({short(error)}){hint}") from None
    try:
        check_file(file, partial)
    except DataError:
        # It cannot be gone on with: the next try starts anew.
        partial.unlink()
        raise
    put_in_place(partial, path)


def check_file(file: WebFile, path: Path) -> None:
    """See that a file is the expected one, where its hash is known.

    Raises:
        DataError: it is another one.
    """
    if file.md5 is None:
        return
    found = file_md5(path)
    if found != file.md5:
        raise DataError(
            f"{path} is damaged or another file than {file.url} (MD5 {found}, expected {file.md5}); "
            "delete it to have it anew"
        )


def file_md5(path: Path) -> str:
    """The MD5 of a file in hexadecimal: against damage, and against another file of the same name."""
    digest = hashlib.md5(usedforsecurity=False)
    with open_file(path) as content:
        while block := content.read(BLOCK):
            digest.update(block)
    return digest.hexdigest()


def _fetch_whole(file: WebFile, partial: Path) -> None:
    """Fetch what is missing, with a new connection where one ends early."""
    progress = _Progress(file.size)
    for left in range(TRIES - 1, -1, -1):
        before = partial.stat().st_size if partial.is_file() else 0
        if file.md5 and before == file.size:
            break
        try:
            _fetch(file, partial, before, progress)
            break
        except (OSError, HTTPException):
            came = partial.stat().st_size if partial.is_file() else 0
            # A server that gives nothing at all is not asked again.
            if not left or came <= before:
                raise
    progress.end()


def _fetch(file: WebFile, partial: Path, start: int, progress: "_Progress") -> None:
    """Fetch a file from a byte on, or anew where the server cannot begin there."""
    wanted = {"User-Agent": "v2m"} | ({"Range": f"bytes={start}-"} if start else {})
    try:
        response = urlopen(Request(file.url, headers=wanted), timeout=network.SILENCE)
    except HTTPError as error:
        if error.code == 416 and start:  # more is here than there
            partial.unlink()
        raise
    with response:
        is_continued = response.status == 206
        if is_continued and not response.headers.get("Content-Range", "").startswith(f"bytes {start}-"):
            raise ConnectionError("the server continues at another byte than it was asked for")
        done = start if is_continued else 0
        length = response.headers.get("Content-Length")
        total = done + int(length) if length and length.isdecimal() else None
        if file.md5 and total is not None and total != file.size:
            raise DataError(f"{file.url} has {total:,} bytes, expected {file.size:,}: it is another file")
        most = file.size if file.md5 else 2 * file.size
        with open(partial, "ab" if is_continued else "wb") as kept:
            while block := response.read(BLOCK):
                done += len(block)
                if done > most:
                    partial.unlink()
                    raise DataError(f"{file.url} has more than {most:,} bytes: it is another file")
                kept.write(block)
                progress.tell(done)
    if done < (file.size if file.md5 else total or 0):
        raise ConnectionError(f"the connection ended after {_megabytes(done)}")


class _Progress:
    """How much has come: one line in a terminal, a line from time to time in a file."""

    def __init__(self, size: int) -> None:
        self._size, self._shown_at = size, time.monotonic()
        self._is_terminal = sys.stderr.isatty()
        self._is_line_open = False

    def tell(self, done: int) -> None:
        """Show how many bytes there are, unless that was shown a moment ago."""
        now = time.monotonic()
        if now - self._shown_at < (0.2 if self._is_terminal else SECONDS_A_LINE):
            return
        self._shown_at = now
        line = f"downloaded {done / MEGABYTE:,.0f} of {_megabytes(self._size)} ({done / self._size:.0%})"
        sys.stderr.write(f"\r{line}" if self._is_terminal else f"{line}\n")
        sys.stderr.flush()
        self._is_line_open = self._is_terminal

    def end(self) -> None:
        """End the line."""
        if self._is_line_open:
            sys.stderr.write("\n")


def _megabytes(size: int) -> str:
    return f"{size / MEGABYTE:,.0f} MB"
