"""Servers: some that never end, and some of a file."""

import socket
import threading
from contextlib import ExitStack, contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@contextmanager
def slow_server(is_dripping):
    """The address of a server that takes requests and never answers, or answers a byte a time."""
    done = threading.Event()

    def drip(connection):
        with suppress(OSError):
            connection.recv(1000)
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 999\r\n\r\n")
            while not done.wait(0.1):
                connection.sendall(b" ")

    def serve():
        with ExitStack() as kept, suppress(OSError):
            while True:
                connection, _ = server.accept()
                kept.enter_context(connection)
                if is_dripping:
                    threading.Thread(target=drip, args=(connection,), daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as server:
        serving = threading.Thread(target=serve, daemon=True)
        serving.start()
        try:
            yield f"http://127.0.0.1:{server.getsockname()[1]}/"
        finally:
            done.set()
            server.shutdown(socket.SHUT_RDWR)
            serving.join()


@contextmanager
def file_server(content, *, knows_ranges=True, cuts_after=None, tells_length=True):
    """A server of one file.

    Args:
        content: The bytes of the file.
        knows_ranges: Whether it can begin at a later byte.
        cuts_after: Bytes after which its first answer ends, whatever it has announced.
        tells_length: Whether it announces how much will come.

    Yields:
        Its address, and the list of the ``Range`` of each request.
    """
    ranges = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            wanted = self.headers.get("Range")
            ranges.append(wanted)
            start = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted and knows_ranges else 0
            if start >= len(content):
                self.send_error(416)
                return
            self.send_response(206 if start else 200)
            if start:
                self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
            if tells_length:
                self.send_header("Content-Length", str(len(content) - start))
            self.end_headers()
            is_cut = cuts_after is not None and len(ranges) == 1
            self.wfile.write(content[start:cuts_after] if is_cut else content[start:])

        def log_message(self, *arguments):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        serving = threading.Thread(target=server.serve_forever, daemon=True)
        serving.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}/file", ranges
        finally:
            server.shutdown()
            serving.join()
