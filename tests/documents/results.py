"""Read the files of ``benchmarks/results``."""

import json
from functools import cache

from tests.helpers import REPOSITORY
from v2m.studies.results import StudyResult

RESULTS = REPOSITORY / "benchmarks" / "results"


@cache
def read_result(name):
    """The content of a JSON file, by its name without the suffix."""
    return json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))


@cache
def read_epochs(name):
    """The metrics of every epoch of a run."""
    lines = (RESULTS / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def read_log(name):
    """What a run printed."""
    return (RESULTS / f"{name}.log").read_text(encoding="utf-8")


@cache
def read_study(name):
    """The runs of a study. Files of before have the top-1 accuracy in a place of its own."""
    runs = []
    for run in read_result(f"study_{name}")["runs"]:
        metrics = run.get("metrics") or {"val_top1": run["top1"], "val_loss": run["val_loss"]}
        runs.append(
            StudyResult(
                label=run["label"],
                seed=run["seed"],
                parameters=run["parameters"],
                epochs=run["epochs"],
                metrics=metrics,
                seconds=run["seconds"],
                config=run["config"],
            )
        )
    return runs


def scores(study, label, metric):
    """A metric of a variant in percent, by seed."""
    return {run.seed: 100 * run.metrics[f"val_{metric}"] for run in read_study(study) if run.label == label}


def timed(name, key="model"):
    """The rows of a benchmark: by model or competitor, mode and resolution or grid."""
    # The exact recurrence was an argument of its own once.
    return {
        (
            row[key].replace("recurrence=exact", "mixer=exact"),
            row["mode"],
            row.get("resolution", row.get("grid")),
        ): row
        for row in read_result(name)["rows"]
    }
