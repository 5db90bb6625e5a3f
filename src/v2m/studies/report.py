"""The files about a study in its folder: commands, results, table and plot."""

import shlex
from collections.abc import Sequence
from pathlib import Path

from v2m.pictures import plot_study
from v2m.studies.results import StudyResult, results_table, write_results
from v2m.studies.run import StudyRun
from v2m.studies.study import Study
from v2m.system.files import replace_file
from v2m.system.tables import TextTable

COMMANDS, RESULTS, TABLE, PLOT = "commands.sh", "results.json", "table.md", "study.png"
CAPTION = (
    "Scores on the validation images after the last epoch, mean ± sample standard deviation over the runs. "
    "Difference: of the first score, in percentage points, seed by seed, over seeds that both have (pairs)."
)


class StudyReport:
    """The files about a study. They are written anew each time a run ends, so a study can be read early.

    Args:
        study: The study.
        output: Its folder, which exists.
        runs: All its runs. Those that are done are taken up at once.
    """

    def __init__(self, study: Study, output: Path, runs: Sequence[StudyRun]) -> None:
        self._study, self._output, self._runs = study, output, runs
        self._results = {run.name: StudyResult.of(run) for run in runs if run.is_done}
        commands = (shlex.join(["v2m", "train", *run.arguments]) for run in runs)
        self._write(COMMANDS, "\n".join(["#!/bin/sh", f"# {study.title}", *commands]))
        self._write_results()

    def add(self, run: StudyRun) -> None:
        """Take up the result of a run that is done, and write the files."""
        self._results[run.name] = StudyResult.of(run)
        self._write_results()

    @property
    def results(self) -> list[StudyResult]:
        """Results of the runs that are done, in the order of the study and not that in which they ended."""
        return [self._results[run.name] for run in self._runs if run.name in self._results]

    def table(self) -> TextTable:
        """The table of the runs that are done."""
        about = {label: variant.about for label, variant in self._study.variants.items()}
        return results_table(self.results, about, self._runs[0].metrics)

    def _write_results(self) -> None:
        """Write results, table and plot."""
        results = self.results
        if not results:
            return
        write_results(self._output / RESULTS, self._study.title, results)
        done = (
            "" if len(results) == len(self._runs) else f"{len(results)} of {len(self._runs)} runs are done. "
        )
        self._write(TABLE, f"# {self._study.title}\n\n{done}{CAPTION}\n\n{self.table().markdown()}")
        # For the plot: by name of the score and label of the variant, one number for each seed.
        scores = {
            name: {
                label: [result.metrics[f"val_{key}"] for result in results if result.label == label]
                for label in self._study.variants
            }
            for key, name in self._runs[0].metrics
        }
        plot_study(scores, self._output / PLOT, self._study.title)

    def _write(self, name: str, text: str) -> None:
        replace_file(self._output / name, lambda partial: partial.write_text(text + "\n", encoding="utf-8"))
