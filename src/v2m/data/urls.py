"""Images of the web: an address is read into memory, in bounds of time and size, and never onto the disk."""

import http.client
import io
import socket
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import unquote, urlsplit

from PIL import Image

from v2m.data.errors import UnreadableImageError
from v2m.data.images import decode_image
from v2m.system.errors import first_line

SCHEMES = ("http", "https")
MOST_BYTES = 2**27
"""The largest answer that is read."""
SECONDS = 60.0
"""The time that an answer may take, with all redirections."""
SILENCE = 15.0
"""Seconds that a server may say nothing."""
MOST_REDIRECTIONS = 5
BLOCK = 2**16
HEADERS = {"User-Agent": "v2m", "Accept": "image/*,*/*;q=0.5", "Accept-Encoding": "identity"}


class ImageUrl(str):
    """The address of an image, which has parts of a name as a path has them."""

    @property
    def _path(self) -> PurePosixPath:
        parts = urlsplit(self)
        return PurePosixPath(parts.netloc, unquote(parts.path).lstrip("/"))

    @property
    def parts(self) -> tuple[str, ...]:
        """The server, folders and the last part."""
        return self._path.parts

    @property
    def stem(self) -> str:
        """The last part without its suffix."""
        return self._path.stem

    @property
    def suffix(self) -> str:
        """The suffix of the last part."""
        return self._path.suffix


def is_url(text: str) -> bool:
    """Whether a text is an address, of whatever kind."""
    return "://" in text


def read_url(url: str) -> Image.Image:
    """Read the image at an address, upright and as 8 bits a channel, as ``read_image`` does with a file.

    What counts is the content. What the server says of its type and length is not believed.

    Args:
        url: An address of ``http`` or ``https``.

    Raises:
        UnreadableImageError: the address is of another kind, the server does not answer in time or with an
            error, the answer is too large, or it is no image.
    """
    if urlsplit(url).scheme.lower() not in SCHEMES:
        raise UnreadableImageError(url, "an address of another kind, expected http:// or https://")
    try:
        with _deadline() as openers:
            content = _download(url, openers)
    except Exception as error:  # http.client, ssl and sockets raise all kinds
        raise UnreadableImageError(url, _reason(error)) from None
    return decode_image(io.BytesIO(content), url)


def _download(url: str, handlers: list[urllib.request.BaseHandler]) -> bytes:
    opener = urllib.request.OpenerDirector()
    redirect = urllib.request.HTTPRedirectHandler()
    redirect.max_redirections = MOST_REDIRECTIONS  # type: ignore[misc]
    for handler in (
        urllib.request.ProxyHandler(),
        urllib.request.HTTPDefaultErrorHandler(),
        urllib.request.HTTPErrorProcessor(),
        urllib.request.UnknownHandler(),  # where an answer leads to another kind of address
        redirect,
        *handlers,
    ):
        opener.add_handler(handler)
    content = bytearray()
    with opener.open(urllib.request.Request(url, headers=HEADERS), timeout=SILENCE) as answer:
        while block := answer.read1(BLOCK):
            content += block
            if len(content) > MOST_BYTES:
                raise ValueError(f"more than {MOST_BYTES:,} bytes, expected a smaller file")
    return bytes(content)


@contextmanager
def _deadline() -> Iterator[list[urllib.request.BaseHandler]]:
    """Handlers whose connections are shut after ``SECONDS``, wherever a server keeps them waiting.

    A limit for every answer of a socket is not enough: a server may send a byte now and then for ever.
    """
    opened: list[socket.socket] = []
    end = time.monotonic() + SECONDS

    def connect(*args: Any, **options: Any) -> socket.socket:
        connection = socket.create_connection(*args, **options)
        opened.append(connection.dup())  # encryption takes the socket itself away
        return connection

    def shut() -> None:
        for connection in opened:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    timer = threading.Timer(SECONDS, shut)
    timer.daemon = True
    timer.start()
    try:
        yield [_Http(connect), _Https(connect)]
    except Exception:
        if time.monotonic() >= end:
            raise TimeoutError(f"the server did not finish within {SECONDS:.0f} seconds") from None
        raise
    finally:
        timer.cancel()
        for connection in opened:
            connection.close()
    if time.monotonic() >= end:  # a connection that was shut may look like one that ended
        raise TimeoutError(f"the server did not finish within {SECONDS:.0f} seconds")


def _connection(kind: Any, connect: Any, host: str, **options: Any) -> http.client.HTTPConnection:
    connection = kind(host, **options)
    connection._create_connection = connect
    return connection


class _Http(urllib.request.HTTPHandler):
    def __init__(self, connect: Any) -> None:
        super().__init__()
        self._kind: Any = partial(_connection, http.client.HTTPConnection, connect)

    def http_open(self, req: urllib.request.Request) -> Any:
        return self.do_open(self._kind, req)


class _Https(urllib.request.HTTPSHandler):
    def __init__(self, connect: Any) -> None:
        super().__init__()
        self._kind: Any = partial(_connection, http.client.HTTPSConnection, connect)

    def https_open(self, req: urllib.request.Request) -> Any:
        return self.do_open(self._kind, req)


def _reason(error: Exception) -> str:
    if isinstance(error, urllib.error.HTTPError):
        error.close()
        return f"the server answers {error.code} {first_line(Exception(error.msg))}"
    if isinstance(error, urllib.error.URLError):
        inner = error.reason
        error = inner if isinstance(inner, Exception) else error
    if isinstance(error, TimeoutError) and "finish" not in str(error):
        return f"the server said nothing for {SILENCE:.0f} seconds"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return first_line(error)
