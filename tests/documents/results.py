"""Read the files of ``benchmarks/results``."""

import json
import sys
from functools import cache

from tests.helpers import REPOSITORY
from v2m.studies.results import StudyResult

RESULTS = REPOSITORY / "benchmarks" / "results"
CURRENT = {
    "scans": "operators_amd-epyc-zen-4-1-thread_20261128-133832",  # the scans of a layer, all competitors
    "grids": "operators_amd-epyc-zen-4-1-thread_20261128-134056",  # scans of growing grids
    "largest_grid": "operators_amd-epyc-1-thread_20261122-223222",  # the 2048x2048 grid
    "readme": "models_amd-epyc-zen-4-1-thread_20261128-144319",  # README.md's table, for make bench
    "step_memory": "models_amd-epyc-zen-4-1-thread_20261128-133639",  # batch 4, with peak memory
    "light_batch_1": "models_amd-epyc-1-thread_20261122-235609",  # light models
    "light_batch_8": "models_amd-epyc-1-thread_20261122-235619",  # light models
    "plain": "models_amd-epyc-1-thread_20261122-235108",  # plain models with other mixers
    "hierarchical": "models_amd-epyc-1-thread_20261122-235353",  # hierarchical models beside Swin-T
    "resolutions": "models_amd-epyc-zen-4-1-thread_20261128-141252",  # batch 1 at 224, 512 and 1024 px
    "roofline": "roofline_amd-epyc-zen-4-1-thread_20261128-134802",  # the kernels beside the ceilings
    "roofline_avx2": "roofline_amd-epyc-zen-4-avx2-1-thread_20261128",  # compiled without AVX-512
    "one_thread_batch_1": "models_amd-epyc-zen-4-1-thread_20261128-135125",
    "two_threads_batch_1": "models_amd-epyc-zen-4-2-threads_20261128-135141",
    "one_thread_batch_8": "models_amd-epyc-zen-4-1-thread_20261128-135153",
    "two_threads_batch_8": "models_amd-epyc-zen-4-2-threads_20261128-135225",
    "comparison": "compare_amd-epyc-zen-4_20261128",  # v2m bench compare, all models
}
"""The files behind the speeds of one thread of a CPU, by the word that marks and tables have for them.

Whoever measures anew puts the new names here, and runs make docs.
"""


@cache
def read_result(name):
    """The content of a JSON file, by its word in ``CURRENT`` or its name without the suffix."""
    name = CURRENT.get(name, name)
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


if __name__ == "__main__":  # for the Makefile: the path of a file by its word
    print((RESULTS / f"{CURRENT[sys.argv[1]]}.json").relative_to(REPOSITORY))
