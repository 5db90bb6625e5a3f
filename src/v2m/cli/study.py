"""``v2m study``: run the grid, keep table, plot and commands."""

import io
import shlex
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from rich.console import Console
from rich.table import Table

from v2m.engine.device import best_device
from v2m.engine.run_folder import LOCK
from v2m.engine.stopping import Interrupted
from v2m.pictures import plot_study
from v2m.studies.catalogue import STUDIES, Study, describe_studies
from v2m.studies.results import StudyResult, results_table, write_results
from v2m.studies.run import StudyRun, cores, run_study
from v2m.system.files import check_lock, replace_file
from v2m.system.names import shell_word
from v2m.tasks.config import default_data_dir

CAPTION = (
    "Scores on the validation images after the last epoch, mean ± sample standard deviation over the runs. "
    "Difference: of the first score, in percentage points, seed by seed, over seeds that both have (pairs)."
)


def run(options: Any, out: Console, errors: Console) -> int:
    """Run a study: 1 if a run failed.

    Args:
        options: Parsed options of ``v2m study``.
        out: Where progress and the table go.
        errors: Where failures go.
    """
    study = STUDIES.get(options.name)
    if study is None:
        raise ValueError(f"name: {options.name!r} is no study, there are: {describe_studies()}")
    unknown = [label for label in options.only if label not in study.variants]
    if unknown:
        raise ValueError(f"only: {unknown[0]!r} is no variant, there are: {', '.join(study.variants)}")
    output = Path(options.output or f"runs/study-{options.name}")
    runs = study.runs(output, options.data_dir, list(dict.fromkeys(options.seeds or study.seeds)))
    chosen = [run for run in runs if run.label in (options.only or study.variants)]
    jobs = options.jobs or (cores() if best_device().type == "cpu" else 1)
    for run in runs:
        run.check()
    output.mkdir(parents=True, exist_ok=True)
    check_lock(output / LOCK)
    try:
        with FileLock(output / LOCK, timeout=0):
            report = _Report(study, output, runs)
            out.print(f"{study.title}: {len(chosen)} runs, {jobs} at a time")
            failures = run_study(chosen, jobs, out, report.add)
    except Timeout:
        raise ValueError(f"output: another v2m study is at work in {output}") from None
    except Interrupted as stop:
        raise Interrupted(f"{stop}; continue with: {_command(options)}") from None
    if report.results:
        out.print(report.table())
    out.print()
    out.print(f"Everything is in {output}: table.md, results.json, study.png, commands.sh and the runs")
    for name, line in failures.items():
        errors.print(f"v2m: error: {name}: {line}")
    return 1 if failures else 0


class _Report:
    """The files about all runs of a study, written again as runs end."""

    def __init__(self, study: Study, output: Path, runs: list[StudyRun]) -> None:
        self.study, self.output, self.runs = study, output, runs
        self.results = {run.name: StudyResult.of(run) for run in runs if run.is_done}
        commands = (shlex.join(["v2m", "train", *run.arguments]) for run in runs)
        self._write("commands.sh", "\n".join(["#!/bin/sh", f"# {study.title}", *commands]))
        self._write_results()

    def add(self, run: StudyRun) -> None:
        """Take up the result of a run."""
        self.results[run.name] = StudyResult.of(run)
        self._write_results()

    def _write_results(self) -> None:
        """Write results, table and plot, of the runs in their order."""
        results = [self.results[run.name] for run in self.runs if run.name in self.results]
        if not results:
            return
        write_results(self.output / "results.json", self.study.title, results)
        text = io.StringIO()
        Console(file=text, width=1000, markup=False, highlight=False).print(self.table())
        table = "\n".join(line.strip() for line in text.getvalue().strip().splitlines())
        done = f"{len(results)} of {len(self.runs)} runs are done. " if len(results) < len(self.runs) else ""
        self._write("table.md", f"# {self.study.title}\n\n{done}{CAPTION}\n\n{table}")
        scores = {
            name: {
                label: [result.metrics[f"val_{key}"] for result in results if result.label == label]
                for label in self.study.variants
            }
            for key, name in self.runs[0].metrics
        }
        plot_study(scores, self.output / "study.png", self.study.title)

    def table(self) -> Table:
        """The table of what is done."""
        about = {label: variant.about for label, variant in self.study.variants.items()}
        return results_table([*self.results.values()], about, self.runs[0].metrics)

    def _write(self, name: str, text: str) -> None:
        replace_file(self.output / name, lambda partial: partial.write_text(text + "\n", encoding="utf-8"))


def _command(options: Any) -> str:
    """The command again, for another shell."""
    words = ["v2m", "study", options.name]
    for name in ("seeds", "only"):
        if options[name]:
            words += [f"--{name}", *map(str, options[name])]
    for name, default in (("jobs", None), ("output", None), ("data_dir", default_data_dir())):
        if options[name] != default:
            words += [f"--{name}", str(options[name])]
    return " ".join(map(shell_word, words))
