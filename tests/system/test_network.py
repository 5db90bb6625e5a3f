import signal
import socket
import threading
import time
from contextlib import suppress

import pytest

from v2m.system.network import bounded


def test_what_takes_too_long_ends_even_where_errors_are_retried():
    def retry():
        with bounded(0.2):
            while True:
                with suppress(Exception):
                    time.sleep(60)

    with pytest.raises(TimeoutError, match="did not finish within 0 seconds"):
        retry()


def test_nothing_is_left_of_it():
    before = signal.getsignal(signal.SIGALRM), socket.getdefaulttimeout()
    with bounded(5):
        assert 0 < socket.getdefaulttimeout() <= 5
    with pytest.raises(ZeroDivisionError), bounded(5):
        1 / 0  # noqa: B018
    assert (signal.getsignal(signal.SIGALRM), socket.getdefaulttimeout()) == before
    assert signal.getitimer(signal.ITIMER_REAL) == (0, 0)


def test_other_threads_have_the_timeout_of_sockets_alone():
    seen = []

    def work():
        with bounded(5):
            seen.append(socket.getdefaulttimeout())

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [5]
