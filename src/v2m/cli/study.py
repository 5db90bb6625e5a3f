"""Train variants of a model with several seeds, and compare them.

Goes on where it was stopped.
"""

from dataclasses import dataclass
from pathlib import Path

from v2m.cli.options import DataDirOptions, positional
from v2m.studies.catalogue import describe_studies
from v2m.system.names import shell_word
from v2m.tasks.checks import check_least
from v2m.tasks.config import default_data_dir


@dataclass(frozen=True, kw_only=True)
class StudyOptions(DataDirOptions):
    """Options of ``v2m study``.

    Attributes:
        name: Which study.
        seeds: Seeds; by default the study's.
        only: Variants to train; by default all.
        jobs: Runs at a time; by default a core each, or one on a GPU.
        output: Folder; by default runs/study-NAME.
    """

    name: str = positional(help=f"Which: {describe_studies()}.")
    seeds: tuple[int, ...] = ()
    only: tuple[str, ...] = ()
    jobs: int | None = None
    output: str | None = None

    def __post_init__(self) -> None:
        check_least(self, "", 1, "jobs")
        if min(self.seeds, default=0) < 0:
            raise ValueError(f"seeds is {min(self.seeds)}, expected at least 0")


def run(options: StudyOptions) -> int:
    """Run a study: 1 if a run failed."""
    from filelock import FileLock, Timeout

    from v2m.cli.output import console
    from v2m.engine.device import best_device
    from v2m.engine.run_folder import LOCK
    from v2m.engine.stopping import Interrupted
    from v2m.studies.catalogue import find_study
    from v2m.studies.processes import train_runs
    from v2m.studies.report import COMMANDS, PLOT, RESULTS, TABLE, StudyReport
    from v2m.system.files import check_lock
    from v2m.system.machine import cores

    # What to run. Everything is checked before anything is trained or written.
    study = find_study(options.name)
    unknown = [label for label in options.only if label not in study.variants]
    if unknown:
        raise ValueError(f"only: {unknown[0]!r} is no variant, there are: {', '.join(study.variants)}")
    output = Path(options.output or f"runs/study-{options.name}")
    runs = study.runs(output, options.data_dir, list(dict.fromkeys(options.seeds or study.seeds)))
    chosen = [run for run in runs if run.label in (options.only or study.variants)]
    for run in runs:
        run.check()

    # Run it. The report covers all runs of the study, also those that an earlier command finished.
    out, errors = console(), console(stderr=True)
    jobs = options.jobs or (cores() if best_device().type == "cpu" else 1)
    output.mkdir(parents=True, exist_ok=True)
    check_lock(output / LOCK)
    try:
        with FileLock(output / LOCK, timeout=0):
            report = StudyReport(study, output, runs)
            out.print(f"{study.title}: {len(chosen)} runs, {jobs} at a time")
            failures = train_runs(chosen, jobs, out, report.add)
    except Timeout:
        raise ValueError(f"output: another v2m study is at work in {output}") from None
    except Interrupted as stop:
        raise Interrupted(f"{stop}; continue with: {_command(options)}") from None

    # Tell what came out.
    if report.results:
        out.print(report.table())
    out.print()
    out.print(f"Everything is in {output}: {TABLE}, {RESULTS}, {PLOT}, {COMMANDS} and the runs")
    for name, line in failures.items():
        errors.print(f"v2m: error: {name}: {line}")
    return 1 if failures else 0


def _command(options: StudyOptions) -> str:
    """The command that continues this study, quoted for a shell."""
    words = ["v2m", "study", options.name]
    for name in ("seeds", "only"):
        if values := getattr(options, name):
            words += [f"--{name}", *map(str, values)]
    for name, default in (("jobs", None), ("output", None), ("data_dir", default_data_dir())):
        if (value := getattr(options, name)) != default:
            words += [f"--{name}", str(value)]
    return " ".join(map(shell_word, words))
