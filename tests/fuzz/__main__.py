"""Fuzz for a time: ``python -m tests.fuzz --minutes 60``.

One case again: ``--targets coco --seed 0 --first 123 --cases 1``.
"""

import argparse
import json
import sys
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.fuzz.runner import Case, Result, run_cases
from tests.fuzz.targets import TARGETS


def main() -> int:
    """Run rounds over all targets; 1 if anything went wrong."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz")
    parser.add_argument("--minutes", type=float, default=0, help="go on for so long; 0 for one round")
    parser.add_argument("--seed", default="0")
    parser.add_argument("--targets", nargs="+", choices=sorted(TARGETS), default=sorted(TARGETS))
    parser.add_argument("--first", type=int, default=0, help="number of the first case")
    parser.add_argument("--cases", type=int, default=200, help="cases of each target in a round")
    parser.add_argument("--jobs", type=int, default=1, help="processes at a time")
    parser.add_argument("--output", type=Path, help="JSON file for counts and findings")
    options = parser.parse_args()
    first, started, results = options.first, time.monotonic(), []

    def run(target: str, first: int) -> None:
        found = run_cases([Case(target, options.seed, first + i) for i in range(options.cases)])
        results.extend(found)
        seconds = time.monotonic() - started
        print(f"{seconds:6.0f} s  {target} from {first}: {_counts(found)}", flush=True)
        for case, outcome, what in found:
            if outcome == "wrong":
                print(f"          {case.number}: {what}", flush=True)
        if options.output:
            _write(options.output, results, seconds)

    with ThreadPoolExecutor(options.jobs) as pool:
        while first == options.first or time.monotonic() - started < 60 * options.minutes:
            list(pool.map(run, options.targets, [first] * len(options.targets)))
            first += options.cases
    print(f"{len(results):,} cases: {_counts(results)}")
    return 1 if _counts(results).get("wrong") else 0


def _counts(results: list[Result]) -> dict[str, int]:
    return dict(Counter(result.outcome for result in results))


def _write(path: Path, results: list[Result], seconds: float) -> None:
    targets = {name: [r for r in results if r.case.target == name] for name in sorted(TARGETS)}
    content = dict(
        seconds=round(seconds),
        counts=_counts(results),
        targets={name: _counts(found) for name, found in targets.items() if found},
        wrong=[[*case, what] for case, outcome, what in results if outcome == "wrong"],
    )
    path.write_text(json.dumps(content, indent=2) + "\n")


if __name__ == "__main__":
    sys.exit(main())
