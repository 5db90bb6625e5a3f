"""A process that runs cases: ``python -m tests.fuzz.worker FOLDER < CASES``, a JSON line each.

It prints a line before each case and one after it, so that its parent knows the case that killed it.
"""

import json
import os
import random
import re
import resource
import shutil
import sys
import tempfile
import traceback
import warnings
from functools import cache
from pathlib import Path

import matplotlib.font_manager  # noqa: F401  # it writes a cache when it is imported first
import numpy as np
import torch
from PIL import Image

from tests.fuzz.guard import Guard
from tests.fuzz.mutations import CANARY
from tests.fuzz.targets import TARGETS, BadRefusalError, RefusedError
from v2m.ops.kernels import build

MOST_MEMORY = 8 * 2**30
"""Address space: beyond it allocations fail, instead of filling the machine."""
SETTING = r"[a-z_]+(\.[a-z_]+)*(:| is | has )"
"""How errors begin that name a setting instead of a file."""


def main(folder: Path) -> None:
    """Run the cases that standard input names."""
    say = os.fdopen(os.dup(1), "w", buffering=1, encoding="utf-8")
    os.dup2(2, 1)  # what is printed otherwise
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    build.is_available()
    case, outside = folder / "case", folder / "outside"
    outside.mkdir()
    Image.new("RGB", (10, 10)).save(outside / "secret.png")
    _plant_canary(folder / "path")
    guard = Guard(case, outside)

    @cache
    def made(target: str) -> Path:
        case.mkdir()  # in the place of all cases, since files may name it
        TARGETS[target].make(case)
        return case.rename(folder / target)

    for line in sys.stdin:
        target, seed, number = json.loads(line)
        shutil.copytree(made(target), case)
        say.write(f"{line.strip()}\n")
        os.chdir(case)
        tempfile.tempdir = str(case)
        resource.setrlimit(resource.RLIMIT_AS, (MOST_MEMORY, resource.RLIM_INFINITY))
        rng = random.Random(f"{target} {seed} {number}")
        if number:  # the first case leaves the files as they are
            TARGETS[target].change(rng, case)
        found = _run(target, guard, rng, case)
        resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        say.write(json.dumps(found) + "\n")
        os.chdir(folder)
        shutil.rmtree(case)


def _plant_canary(folder: Path) -> None:
    folder.mkdir()
    (folder / f"{CANARY}.py").write_text("class Fire:\n    pass\n")
    sys.path.append(str(folder))


def _run(name: str, guard: Guard, rng: random.Random, case: Path) -> tuple[str, str]:
    """One case: ``passed``, ``refused`` or ``wrong``, and what was said."""
    np.random.seed(rng.randrange(2**32))
    torch.manual_seed(rng.randrange(2**32))
    outcome, what = "passed", ""
    with guard.watched():
        try:
            TARGETS[name].run(case, rng)
        except RefusedError as error:
            outcome, what = "refused", str(error)
        except BadRefusalError as error:
            outcome, what = "wrong", str(error)
        except (ValueError, OSError) as error:
            names_it = str(case) in str(error) or re.match(SETTING, str(error))
            is_line = "\n" not in str(error) and names_it
            outcome, what = ("refused" if is_line else "wrong"), _place(error)
        except Exception as error:
            outcome, what = "wrong", _place(error)
    if guard.notes:
        outcome, what = "wrong", "; ".join([*guard.notes, what])
    return outcome, what[:2000]


def _place(error: BaseException) -> str:
    """An error, and the last places of the package that it went through."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if "v2m" in frame.filename]
    places = " < ".join(f"{Path(frame.filename).name}:{frame.lineno}" for frame in reversed(frames[-3:]))
    return f"{type(error).__name__}: {str(error)[:500]} ({places})"


if __name__ == "__main__":
    main(Path(sys.argv[1]))
