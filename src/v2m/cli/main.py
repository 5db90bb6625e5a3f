"""Parse the command line, run the command, and turn what goes wrong into one line."""

import io
import logging
import os
import re
import sys
import warnings
from collections.abc import Sequence
from errno import ENOMEM
from typing import Any

from v2m import __version__
from v2m.cli.command import (
    CommandGroup,
    UnknownCommandError,
    description,
    find_command,
    help_text,
    options_type,
)
from v2m.cli.mistakes import as_typed, did_you_mean
from v2m.cli.options import Parser
from v2m.cli.output import console
from v2m.engine import processes
from v2m.engine.stopping import Interrupted, answer_interrupts, end
from v2m.system.errors import DataError, shown
from v2m.system.names import nearest
from v2m.system.open_files import is_limit
from v2m.system.threads import share_cores

OUT_OF_MEMORY = r"out of memory|(?i:can(no|')t allocate memory)|bad_alloc"
"""What PyTorch says where memory ran out: its own words, the system's, and those of C++."""
FAILED, BROKEN_PIPE = 1, 141
"""Exit codes; the last is that of a shell for a process that a signal ended."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run ``v2m`` with these arguments (by default the process's own); returns the exit code.

    Bad options exit with 2, everything else that fails returns 1, after one line on standard error. Set
    ``V2M_TRACEBACK=1`` to see where an error comes from.
    """
    parser = Parser("")
    try:
        _open_outputs()
        _shorten_messages()
        if arguments is None:
            # The process is ours: those that it starts take no modules of the current folder either.
            os.environ["PYTHONSAFEPATH"] = "1"
            answer_interrupts()
            share_cores()
            arguments = sys.argv[1:]
        name, command, rest = find_command(arguments)
        if command is None or isinstance(command, CommandGroup):
            return _answer(name, command, rest)
        parser = Parser(name, description(command))
        return command.run(options_type(command).parse(parser, rest))
    except UnknownCommandError as error:
        parser.error(str(error))
    except Interrupted as stop:
        return end(str(stop))
    except KeyboardInterrupt:
        return end("stopped")
    except BrokenPipeError:
        # The reader of our output is gone, and Python would complain again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return BROKEN_PIPE
    except (ValueError, OSError, ArithmeticError, RuntimeError, MemoryError) as error:
        if processes.is_reader_lost(error):
            error = processes.reader_lost(error)
        if not _is_expected(error) or os.environ.get("V2M_TRACEBACK"):
            raise
        if not isinstance(error, processes.ProcessLostError):
            processes.give_way()  # to the first process, which tells of what all of them met
        console(stderr=True).print(f"v2m: error: {as_typed(_one_line(error), parser.option_names)}")
        return FAILED


def _answer(name: str, group: CommandGroup | None, arguments: Sequence[str]) -> int:
    """Answer where no command is named that does something: print the help or the version."""
    start = f"v2m {name}".strip()
    if not group and arguments[:1] == ["--version"]:
        print(f"v2m {__version__}")
    elif (not group and not arguments) or arguments[:1] in (["-h"], ["--help"]):
        print(help_text(name, group))
    elif group and not arguments:
        raise UnknownCommandError(f"{start} expects one of {', '.join(group.COMMANDS)} (see {start} --help)")
    else:
        hint = did_you_mean(nearest(arguments[0], ["--help", "--version"])) or f" (see {start} --help)"
        raise UnknownCommandError(f"{start} has no option {arguments[0]}{hint}")
    return 0


def _open_outputs() -> None:
    """Have somewhere to print to where an output was closed, and let it take the name of any file.

    Letters that its encoding lacks are printed as their numbers.
    """
    if sys.stdout is None:
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")


def _shorten_messages() -> None:
    """Print what libraries warn of in a line, and nothing of retries, which end in an error if in vain."""
    if os.environ.get("V2M_TRACEBACK"):
        return
    warnings.formatwarning = _warning_line
    logging.getLogger("huggingface_hub.utils._http").addFilter(_is_no_retry)


def _warning_line(message: Warning | str, *_: Any, **__: Any) -> str:
    return f"warning: {shown(' '.join(str(message).split()))}\n"


def _is_no_retry(record: Any) -> bool:
    return not re.search(r"thrown while requesting|^Retrying in", record.getMessage())


def _is_expected(error: Exception) -> bool:
    """Whether its message is all that a person needs; other RuntimeErrors are faults of this package."""
    if isinstance(error, RuntimeError):
        from v2m.ops.kernels.build import KernelError

        return isinstance(error, KernelError) or _is_memory(error) or is_limit(error)
    return True


def _one_line(error: Exception) -> str:
    """What to say of an error.

    One in a loader's worker process arrives as a traceback, of which the last line is its message.
    """
    lines = [line for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    is_workers = len(lines) > 1 and "in DataLoader worker" in lines[0]
    if _is_memory(error):
        return _memory_line(lines[-1] if is_workers else lines[0], is_workers)
    if is_limit(error):
        return "too many open files at once; raise the limit (ulimit -n 4096), or try fewer --workers"
    if is_workers:
        return lines[-1].partition(": ")[2]
    if isinstance(error, OSError) and error.strerror:
        names = [os.fsdecode(n) for n in (error.filename, error.filename2) if isinstance(n, str | bytes)]
        return ": ".join([*names, error.strerror])
    # Of other libraries' errors, the first line says what is wrong.
    return str(error) if isinstance(error, DataError | OSError) else lines[0]


def _memory_line(reason: str, is_workers: bool) -> str:
    if is_workers:
        return f"a process that reads images is out of memory ({reason[:300]}); try fewer --workers"
    return (
        f"this process is out of memory ({reason[:300]}); "
        "try a smaller --batch_size, or more --accumulate in training"
    )


def _is_memory(error: Exception) -> bool:
    """Whether memory ran out, which PyTorch says in several ways."""
    if isinstance(error, RuntimeError):
        return bool(re.search(OUT_OF_MEMORY, str(error)))
    return isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno == ENOMEM)
