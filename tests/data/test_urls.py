"""Images at addresses, of servers that are kind, slow, endless and lying."""

import http.server
import io
import socket
import threading
import time
from contextlib import suppress

import numpy as np
import pytest
from PIL import Image

from tests.data.servers import slow_server
from v2m.data import urls
from v2m.data.errors import UnreadableImageError
from v2m.data.images import read_image
from v2m.data.urls import ImageUrl, read_url


@pytest.fixture(scope="module")
def photo(tmp_path_factory):
    """A photo that EXIF turns, as a file."""
    path = tmp_path_factory.mktemp("photos") / "photo.jpg"
    exif = Image.Exif()
    exif[0x0112] = 6
    pixels = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path, exif=exif)
    return path


@pytest.fixture(scope="module")
def server(photo):
    """The address of a server of photos."""
    content = photo.read_bytes()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            with suppress(OSError):
                getattr(self, self.path.strip("/").split(".")[0])()

        def answer(self, body, length=None, kind="image/jpeg"):
            self.send_response(200)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body) if length is None else length))
            self.end_headers()
            self.wfile.write(body)

        def photo(self):
            self.answer(content, kind="text/html")

        def webpage(self):
            self.answer(b"<html>no image</html>")

        def shorter(self):
            self.answer(content[:-50], length=len(content))

        def longer(self):
            self.answer(content + b"x" * 1000, length=100)

        def bomb(self):
            file = io.BytesIO()
            Image.new("1", (30_000, 30_000)).save(file, "PNG")
            self.answer(file.getvalue())

        def endless(self):
            self.send_response(200)
            self.end_headers()
            while True:
                self.wfile.write(content)

        def moved(self):
            self.redirect("/photo.jpg")

        def circle(self):
            self.redirect("/circle")

        def file(self):
            self.redirect(photo.as_uri())

        def ftp(self):
            self.redirect("ftp://127.0.0.1/photo.jpg")

        def redirect(self, place):
            self.send_response(302)
            self.send_header("Location", place)
            self.end_headers()

        def missing(self):
            self.send_error(404)

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as serving:
        serving.daemon_threads = True
        threading.Thread(target=serving.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{serving.server_port}"
        serving.shutdown()


@pytest.mark.parametrize("name", ["photo.jpg", "moved"])
def test_an_address_gives_what_the_file_gives(server, photo, name):
    found = read_url(f"{server}/{name}")
    assert (found.size, found.mode) == ((20, 30), "RGB")
    assert np.array_equal(found, read_image(photo))


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("webpage.jpg", "empty, or of no known format"),
        ("shorter", "truncated"),
        ("longer", "(?i)truncated"),
        ("bomb", "exceeds limit"),
        ("missing", r"the server answers 404 Not Found"),
        ("circle", "the server answers 302 "),
        ("file", "the server answers 302 "),
        ("ftp", "unknown url type: ftp"),
    ],
)
def test_what_is_wrong_is_told_in_a_line(server, name, reason):
    url = f"{server}/{name}"
    with pytest.raises(UnreadableImageError, match=reason) as caught:
        read_url(url)
    assert str(caught.value).startswith(f"{url}: not a readable image (")
    assert "\n" not in str(caught.value)


def test_an_endless_answer_is_not_kept(server, monkeypatch):
    monkeypatch.setattr(urls, "MOST_BYTES", 100_000)
    with pytest.raises(UnreadableImageError, match="more than 100,000 bytes"):
        read_url(f"{server}/endless")


@pytest.mark.parametrize(
    "url", ["ftp://host/a.jpg", "file:///etc/passwd", "s3://bucket/a.jpg", "data://text", "://", "http://"]
)
def test_addresses_of_other_kinds_are_refused(url):
    with pytest.raises(UnreadableImageError, match="not a readable image"):
        read_url(url)


def test_nobody_listens():
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    with pytest.raises(UnreadableImageError, match="Connection refused"):
        read_url(f"http://127.0.0.1:{port}/photo.jpg")


def test_a_silent_server_is_not_waited_for(monkeypatch):
    monkeypatch.setattr(urls, "SILENCE", 0.3)
    with slow_server(is_dripping=False) as url, pytest.raises(UnreadableImageError, match="said nothing"):
        read_url(url)


def test_a_dripping_answer_ends(monkeypatch):
    monkeypatch.setattr(urls, "SECONDS", 0.5)
    with slow_server(is_dripping=True) as url, pytest.raises(UnreadableImageError, match="did not finish"):
        read_url(url)


def test_dripping_headers_end_in_any_thread(monkeypatch):
    """A signal would come to the main thread alone, and the limit of a socket begins anew with every byte."""
    monkeypatch.setattr(urls, "SECONDS", 0.5)
    found = []

    def drip(server):
        connection, _ = server.accept()
        with suppress(OSError), connection:
            connection.sendall(b"HTTP/1.1 200 OK\r\nX: ")
            while True:
                connection.sendall(b"x")
                time.sleep(0.05)

    def read(url):
        try:
            read_url(url)
        except UnreadableImageError as error:
            found.append(str(error))

    with socket.create_server(("127.0.0.1", 0)) as server:
        threading.Thread(target=drip, args=(server,), daemon=True).start()
        reader = threading.Thread(
            target=read, args=(f"http://127.0.0.1:{server.getsockname()[1]}/",), daemon=True
        )
        reader.start()
        reader.join(10)
    assert len(found) == 1
    assert "did not finish" in found[0]


def test_names_of_addresses():
    url = ImageUrl("https://example.org/a/b%20c/photo.v2.jpg?size=3#top")
    assert (url.stem, url.suffix) == ("photo.v2", ".jpg")
    assert url.parts == ("example.org", "a", "b c", "photo.v2.jpg")
    assert ImageUrl("https://example.org").stem == "example"
