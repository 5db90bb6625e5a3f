"""Cases in a process of their own, which may hang, crash or run out of memory."""

import json
import os
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from tests.fuzz.guard import SECONDS

ROOT = Path(__file__).parents[2]
SECONDS_TO_START = 180


class Case(NamedTuple):
    """A case, which is always the same."""

    target: str
    seed: str
    number: int


class Result(NamedTuple):
    """What came of a case: ``passed``, ``refused`` or ``wrong``, and what was said."""

    case: Case
    outcome: str
    what: str


def run_cases(cases: Sequence[Case]) -> list[Result]:
    """Run cases in their order; where one kills the process, another process goes on behind it."""
    results: list[Result] = []
    while len(results) < len(cases):
        with tempfile.TemporaryDirectory(prefix="v2m-fuzz-") as folder:
            results += _run_process(cases[len(results) :], Path(folder))
    return results


def _run_process(cases: Sequence[Case], folder: Path) -> list[Result]:
    """Run cases until the process ends."""
    paths = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    more = dict(PYTHONPATH=paths, PYTHONUNBUFFERED="1", OMP_NUM_THREADS="1", TMPDIR=str(folder))
    given, errors = folder / "cases", folder / "errors"
    given.write_text("".join(json.dumps(case) + "\n" for case in cases))
    results: list[Result] = []
    running = None
    with (
        given.open() as source,
        errors.open("w") as sink,
        subprocess.Popen(
            [sys.executable, "-m", "tests.fuzz.worker", str(folder)],
            stdin=source,
            stdout=subprocess.PIPE,
            stderr=sink,
            env=os.environ | more,
            cwd=ROOT,
            start_new_session=True,
        ) as process,
    ):
        for line in _lines(process):
            if running is None:
                running = Case(*json.loads(line))
            else:
                results.append(Result(running, *json.loads(line)))
                running = None
        code = process.wait()
    said = errors.read_text(errors="replace")[-1500:]
    if running:
        how = "hangs, and cannot be interrupted" if code == -signal.SIGKILL else f"ends the process ({code})"
        results.append(Result(running, "wrong", f"{how}: {said}"))
    elif len(results) < len(cases):
        raise RuntimeError(f"{cases[len(results)]}: the process ends with {code} before it: {said}")
    return results


def _lines(process: subprocess.Popen[bytes]) -> Iterator[bytes]:
    """Lines of a process, which is killed where it says nothing for some time; the first may take longer."""
    assert process.stdout
    rest, until = b"", time.monotonic() + SECONDS_TO_START
    while select.select([process.stdout], [], [], max(0.0, until - time.monotonic()))[0]:
        part = os.read(process.stdout.fileno(), 2**16)
        if not part:
            return
        *lines, rest = (rest + part).split(b"\n")
        yield from lines
        until = time.monotonic() + 3 * SECONDS
    os.killpg(process.pid, signal.SIGKILL)
