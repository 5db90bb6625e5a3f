"""Servers that never end."""

import socket
import threading
from contextlib import ExitStack, contextmanager, suppress


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
