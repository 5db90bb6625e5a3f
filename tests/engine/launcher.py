"""``launcher.py COUNT SCRIPT ARGUMENTS``: a script in processes that find each other.

torchrun imports PyTorch, and so does each of its processes, which takes longer than what is tested. Here all
libraries are imported once, and the processes are forked with the variables that torchrun sets.
"""

import os
import runpy
import socket
import sys

from torch.multiprocessing import start_processes


def run(rank, count, port, script, *arguments):
    os.environ |= dict(
        RANK=str(rank),
        LOCAL_RANK=str(rank),
        WORLD_SIZE=str(count),
        LOCAL_WORLD_SIZE=str(count),
        MASTER_ADDR="127.0.0.1",
        MASTER_PORT=str(port),
    )
    sys.argv = [script, *arguments]
    runpy.run_path(script, run_name="__main__")


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


if __name__ == "__main__":
    import v2m.engine.train  # noqa: F401 - for all processes

    number = int(sys.argv[1])
    start_processes(run, (number, free_port(), *sys.argv[2:]), nprocs=number, start_method="fork")
