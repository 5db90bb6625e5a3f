"""Run a function in a new process of its own: for its memory, and because it can be ended."""

import os
import signal
from collections.abc import Callable
from multiprocessing import get_context
from multiprocessing.connection import Connection
from typing import Any, TypeVar

import torch

T = TypeVar("T")


def run_alone(function: Callable[..., T], *arguments: Any, limit: float | None = None) -> T:
    """What a function returns that runs in a new process, with as many threads as this one.

    Args:
        function: What to run. It must be importable, since the process is a new one.
        arguments: Its arguments.
        limit: Seconds after which it is ended; the start of the process does not count.

    Raises:
        TimeoutError: it took longer.
        OSError: the process was killed, as happens where the machine has too little memory.
    """
    context = get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    folder = os.getcwd()
    work = (sender, folder, torch.get_num_threads(), function, *arguments)
    process = context.Process(target=_work, args=work)
    # The process inherits this: Ctrl-C is for us, and we end it.
    handler = signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.chdir(os.sep)  # where a new Python looks for modules first
    try:
        process.start()
    finally:
        os.chdir(folder)
        signal.signal(signal.SIGINT, handler)
    # The process has the only copy now: if it is killed, the pipe closes, and receiving ends.
    sender.close()
    try:
        receiver.recv()  # it has imported what it needs
        if not receiver.poll(limit):
            raise TimeoutError(f"over {limit:g} s")
        result = receiver.recv()
    except EOFError:
        raise OSError(
            "the process that measures was killed, probably for want of memory; take a smaller batch or size"
        ) from None
    finally:
        process.kill()
        process.join()
    if isinstance(result, Exception):
        raise result
    return result


def _work(
    sender: Connection, folder: str, threads: int, function: Callable[..., Any], *arguments: Any
) -> None:
    """What the new process does: send that it begins, then the result, or the error."""
    sender.send(None)
    # As in the process that started this one: compiled code and memory depend on the number of threads.
    os.chdir(folder)
    torch.set_num_threads(threads)
    try:
        sender.send(function(*arguments))
    except Exception as error:  # raised again by the other side
        sender.send(error)
