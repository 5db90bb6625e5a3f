"""Parse the command line, run the command, and turn what goes wrong into one line."""

import os
import sys
from collections.abc import Sequence

from v2m.cli.commands import COMMANDS, console
from v2m.cli.parser import build_parser, resume_arguments
from v2m.engine import parallel
from v2m.engine.stopping import Interrupted
from v2m.ops.kernels.build import KernelError

FAILED, INTERRUPTED, BROKEN_PIPE = 1, 130, 141


def main(arguments: Sequence[str] | None = None) -> int:
    """Run ``v2m`` with these arguments (by default the process's own); returns the exit code.

    Bad options exit with 2, everything else that fails returns 1, after one line on standard error. Set
    ``V2M_TRACEBACK=1`` to see where an error comes from.
    """
    try:
        arguments = sys.argv[1:] if arguments is None else arguments
        parser = build_parser(arguments)
        options = parser.parse_args(resume_arguments(arguments))
        options = parser.instantiate(options)
        return COMMANDS[options.command](options[options.command])
    except Interrupted as stop:
        if parallel.is_main():
            console(stderr=True).print(f"v2m: {stop}")
        return INTERRUPTED
    except KeyboardInterrupt:
        console(stderr=True).print("v2m: stopped")
        return INTERRUPTED
    except BrokenPipeError:  # the reader of our output is gone; Python would complain again at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return BROKEN_PIPE
    except (ValueError, OSError, ArithmeticError, KernelError) as error:
        if os.environ.get("V2M_TRACEBACK"):
            raise
        if not isinstance(error, parallel.ProcessLostError):
            parallel.give_way()
        console(stderr=True).print(f"v2m: error: {_one_line(error)}")
        return FAILED


def _one_line(error: Exception) -> str:
    """The message; of an error in a loader's worker process, which arrives as a traceback, its last line."""
    lines = [line for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    if len(lines) > 1 and "in DataLoader worker" in lines[0]:
        return lines[-1].partition(": ")[2]
    return lines[0]
